// What one face showed in the last minutes: seven bands of probability, one above the other (uPlot).

import { clock, percent } from "./format.js"
import { store } from "./store.js"

const SHORTEST = 60 // seconds that a timeline spans at least

export class Timeline {
  /** host: the element it fills. tall: with axes, and keys to read it. */
  constructor(host, track, tall) {
    Object.assign(this, { host, track, tall, seen: -1 })
    this.sizes = new ResizeObserver(() => this.plot?.setSize(this.size()))
    this.sizes.observe(host)
    host.addEventListener("mouseleave", hideTip)
    if (tall) {
      host.tabIndex = 0
      host.addEventListener("keydown", (event) => this.step(event))
      host.addEventListener("blur", hideTip)
    }
    this.build()
  }

  size() {
    return { width: Math.max(60, this.host.clientWidth), height: this.host.clientHeight || 34 }
  }

  build() {
    this.plot?.destroy()
    const style = getComputedStyle(document.body)
    const [muted, line] = ["--muted", "--plate-line"].map((name) => style.getPropertyValue(name).trim())
    const axis = { stroke: muted, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" }
    // Drawn from the whole sum down: each next band covers the lower part of the one before.
    this.order = store.labels.map((_, index) => store.labels.length - 1 - index)
    const series = this.order.map((index) => ({
      fill: store.colours[store.labels[index]] ?? muted,
      stroke: "transparent",
      width: 0,
      points: { show: false },
    }))
    this.plot = new uPlot(
      {
        ...this.size(),
        padding: this.tall ? [8, 8, 0, 0] : [0, 0, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false, setScale: false } },
        select: { show: false },
        scales: { x: { time: true, range: () => this.span() }, y: { range: [0, 1] } },
        axes: this.tall
          ? [{ ...axis, size: 26, space: 90, values: (_, times) => times.map((t) => clock(1000 * t)) },
             { ...axis, size: 40, space: 24, values: (_, values) => values.map((v) => `${Math.round(100 * v)} %`) }]
          : [{ show: false }, { show: false }],
        series: [{}, ...series],
        hooks: { setCursor: [(plot) => this.point(plot)] },
      },
      this.data(),
      this.host,
    )
  }

  span() {
    const now = store.now() / 1000
    let first = now
    for (const track of store.tracks.values()) if (track.times.length) first = Math.min(first, track.times[0])
    return [now - Math.min(store.window, Math.max(SHORTEST, now - first)), now]
  }

  data() {
    return [this.track.times, ...this.order.map((index) => this.track.stacks[index])]
  }

  update() {
    this.seen = this.track.changed
    this.plot.setData(this.data())
  }

  point(plot) {
    const index = plot.cursor.idx
    if (index === null || index === undefined || plot.cursor.left < 0 || !this.track.times[index]) return
    showTip(this.host, plot.cursor.left, this.track, index)
  }

  step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key]
    if (by === undefined || !this.track.times.length) return
    event.preventDefault()
    event.stopPropagation()
    const last = this.track.times.length - 1
    const from = this.plot.cursor.idx ?? last
    const index = Math.min(last, Math.max(0, from + by))
    this.plot.setCursor({ left: this.plot.valToPos(this.track.times[index], "x"), top: 10 })
  }

  close() {
    this.sizes.disconnect()
    this.plot.destroy()
  }
}

// One tooltip for all timelines.

function showTip(host, left, track, index) {
  const tip = document.getElementById("tip")
  const values = track.at(index)
  const title = document.createElement("strong")
  title.textContent = `#${track.id}  ${clock(1000 * track.times[index])}`
  const rows = values
    .map((value, k) => [value, store.labels[k]])
    .sort((a, b) => b[0] - a[0])
    .map(([value, label]) => {
      const row = document.createElement("span")
      const swatch = document.createElement("i")
      swatch.style.background = store.colours[label]
      row.append(swatch, `${label} ${percent(value)}`)
      return row
    })
  tip.replaceChildren(title, ...rows)
  tip.hidden = false
  const box = host.getBoundingClientRect()
  // A dialog lies above everything else: the tip has to be in it.
  const parent = host.closest("dialog") ?? document.body
  if (tip.parentElement !== parent) parent.append(tip)
  const x = Math.min(box.left + left + 14, innerWidth - tip.offsetWidth - 8)
  const y = box.top - tip.offsetHeight - 8
  tip.style.left = `${Math.max(8, x)}px`
  tip.style.top = `${y > 8 ? y : box.bottom + 8}px`
}

function hideTip() {
  document.getElementById("tip").hidden = true
}
