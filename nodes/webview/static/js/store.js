// What the page knows: filled from /ws/live, read by the parts that show it.

import { Channel } from "./channel.js"
import { adapt } from "./colours.js"

const SILENT_AFTER = 8000

export const store = {
  cameras: [], // names
  labels: [],
  colours: {}, // label -> colour that is seen on the dark plates of this page
  window: 300, // seconds of the timelines
  faces: {}, // camera -> { time, width, height, faces: [...] }
  tracks: new Map(), // visit -> Track
  snapshot: null,
  drawing: null,
  viewers: 0,
  offset: 0, // ms that this clock is ahead of the server's
  link: "connecting",
  linkSince: Date.now(),
  now() {
    return Date.now() - this.offset
  },
}

/** One appearance of one face: times in seconds, and for each label the sum of the probabilities up to it. */
export class Track {
  constructor(visit, camera, id) {
    Object.assign(this, { visit, camera, id, label: null, times: [], stacks: store.labels.map(() => []), changed: 0 })
  }

  add(at, label, probabilities) {
    this.times.push(at / 1000)
    this.label = label
    let sum = 0
    probabilities.forEach((p, index) => this.stacks[index].push((sum += p)))
    const oldest = at / 1000 - store.window
    while (this.times[0] < oldest) {
      this.times.shift()
      for (const stack of this.stacks) stack.shift()
    }
    this.changed += 1
  }

  get last() {
    return this.times.at(-1) ?? 0
  }

  /** The probabilities of sample `index`, in the order of the labels. */
  at(index) {
    return this.stacks.map((stack, k) => stack[index] - (k ? this.stacks[k - 1][index] : 0))
  }
}

const listeners = {}
let original = {} // the colours as the overlay has them
let heard = 0

/** what: hello, faces, samples, snapshot, link; theme: colours or labels are others. */
export function on(what, listener) {
  ;(listeners[what] ??= []).push(listener)
}

function tell(what) {
  for (const listener of listeners[what] ?? []) listener()
}

const take = {
  hello({ time, cameras, window, colours }) {
    // A server that was restarted begins anew with its visits.
    Object.assign(store, { cameras, window, faces: {}, offset: Date.now() - time })
    store.tracks.clear()
    original = colours
    paint()
  },
  faces({ labels, cameras }) {
    setLabels(labels)
    store.faces = cameras
  },
  samples({ labels, entries }) {
    setLabels(labels)
    for (const [visit, camera, id, at, label, probabilities] of entries) {
      let track = store.tracks.get(visit)
      if (!track) store.tracks.set(visit, (track = new Track(visit, camera, id)))
      track.add(at, label, probabilities)
    }
    const oldest = store.now() / 1000 - store.window
    for (const [visit, track] of store.tracks) if (track.last < oldest) store.tracks.delete(visit)
  },
  snapshot({ snapshot, drawing, viewers }) {
    if (snapshot) store.offset = Date.now() - snapshot.time / 1e6
    Object.assign(store, { snapshot, drawing, viewers })
  },
}

function setLabels(labels) {
  if (labels.join() === store.labels.join()) return
  store.labels = labels
  store.tracks.clear()
  paint()
  tell("theme")
}

function paint() {
  const background = getComputedStyle(document.body).getPropertyValue("--plate").trim()
  store.colours = Object.fromEntries(Object.entries(original).map(([k, colour]) => [k, adapt(colour, background)]))
}

function setLink(link) {
  if (link === store.link) return
  Object.assign(store, { link, linkSince: Date.now() })
  tell("link")
}

/** A page that needs a token by now (the server was started with another one) asks for it. */
async function checkToken() {
  const answer = await fetch("/static/icon.svg", { cache: "no-store" }).catch(() => null)
  if (answer?.status === 401) location.reload()
}

export function connect() {
  const channel = new Channel("/ws/live", {
    open() {
      heard = Date.now()
    },
    message(data) {
      heard = Date.now()
      const message = JSON.parse(data)
      take[message.type]?.(message)
      tell(message.type)
      setLink("live")
    },
    down() {
      setLink("down")
      checkToken()
    },
  })
  setInterval(() => {
    if (channel.open && store.snapshot && Date.now() - heard > SILENT_AFTER) channel.drop()
  }, 1000)
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    paint()
    tell("theme")
  })
}
