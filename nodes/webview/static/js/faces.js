// The faces of one camera: expression, confidence, timeline. Who has left stays a while, dimmed.

import { el, lasting, percent, write } from "./format.js"
import { store } from "./store.js"
import { Timeline } from "./timeline.js"

const STAYS = 8 // seconds that a face which has left is still listed; alone on the screen, as long as its timeline
const ROWS = 3 // with those who have left a card lists no more than so many: it shall not jump

export class FaceList {
  /** list: the <ul> to fill. tall: with a bar for each expression, and larger timelines. */
  constructor(list, camera, tall = false) {
    Object.assign(this, { list, camera, tall, rows: new Map() })
    this.nobody = el("li", { class: "nobody" }, "Nobody in view")
    list.append(this.nobody)
  }

  update() {
    const now = store.now() / 1000
    const seen = store.faces[this.camera]?.faces ?? []
    const present = new Map(seen.map((face, index) => [face.visit ?? `untracked ${index}`, face]))
    const listed = new Map(present)
    const [stays, rows] = this.tall ? [store.window, 50] : [STAYS, ROWS]
    const gone = [...store.tracks.values()]
      .filter((t) => t.camera === this.camera && !present.has(t.visit) && now - t.last < stays)
      .sort((a, b) => b.last - a.last)
    for (const track of gone.slice(0, Math.max(0, rows - present.size))) listed.set(track.visit, null)
    for (const [key, row] of this.rows) {
      if (!listed.has(key)) {
        row.close()
        this.rows.delete(key)
      }
    }
    for (const [key, face] of listed) {
      let row = this.rows.get(key)
      if (!row) {
        this.rows.set(key, (row = new Row(key, this.tall)))
        this.list.append(row.element)
      }
      row.update(face, now)
    }
    this.nobody.hidden = listed.size > 0
    return present.size
  }

  /** Colours or labels are others: draw anew. */
  clear() {
    for (const row of this.rows.values()) row.close()
    this.rows.clear()
  }
}

class Row {
  constructor(visit, tall) {
    this.visit = visit
    this.swatch = el("i", { class: "swatch", "aria-hidden": "true" })
    this.who = el("span", { class: "who" })
    this.label = el("span", { class: "label" })
    this.share = el("span", { class: "share" })
    this.fill = el("i")
    this.meter = el("span", { class: "meter", "aria-hidden": "true" }, this.fill)
    this.bars = tall ? new Bars() : null
    this.host = el("div", { class: "timeline", role: "img" })
    this.tall = tall
    this.timeline = null
    this.element = el(
      "li",
      { class: "face" },
      el("p", { class: "face-line" }, this.swatch, this.who, this.label, this.meter, this.share),
      this.bars?.element ?? null,
      this.host,
    )
    this.element.dataset.visit = visit
  }

  update(face, now) {
    const track = store.tracks.get(this.visit)
    const label = (face ? face.label : track?.label) ?? "no expression yet"
    const colour = store.colours[label] ?? "currentColor"
    const id = face ? face.track : track?.id
    this.element.classList.toggle("gone", !face)
    this.element.dataset.label = label
    write(this.who, id === null || id === undefined ? "face" : `#${id}`)
    write(this.label, label)
    write(this.share, face ? percent(face.score) : track ? `left ${lasting(now - track.last)} ago` : "")
    this.swatch.style.background = this.fill.style.background = colour
    this.fill.style.width = `${face ? 100 * (face.score ?? 0) : 0}%`
    this.bars?.update(face?.probabilities ?? (track ? track.at(track.times.length - 1) : []))
    if (track && !this.timeline && this.host.isConnected) this.timeline = new Timeline(this.host, track, this.tall)
    if (this.timeline && (this.timeline.seen !== track?.changed || !face)) this.timeline.update()
    this.host.setAttribute("aria-label", `Timeline of face ${id ?? ""}: now ${label}${face ? `, ${percent(face.score)}` : ""}`)
  }

  close() {
    this.timeline?.close()
    this.element.remove()
  }
}

class Bars {
  constructor() {
    this.element = el("dl", { class: "bars" })
    this.rows = []
  }

  update(probabilities) {
    if (this.rows.length !== store.labels.length) {
      this.rows = store.labels.map((label) => {
        const fill = el("i")
        fill.style.background = store.colours[label]
        const value = el("span")
        this.element.append(el("dt", {}, label), el("dd", {}, el("span", { class: "meter" }, fill), value))
        return { fill, value }
      })
    }
    probabilities.forEach((p, index) => {
      this.rows[index].fill.style.width = `${100 * p}%`
      write(this.rows[index].value, percent(p))
    })
  }
}
