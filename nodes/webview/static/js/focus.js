// One camera alone, full size. Esc closes, the arrow keys go to its neighbours; the address remembers it.

import { showCondition } from "./cameras.js"
import { FaceList } from "./faces.js"
import { ms, rate, write } from "./format.js"
import { on, store } from "./store.js"
import { hide, show } from "./video.js"

const dialog = document.getElementById("focus")
const canvas = dialog.querySelector("canvas")
const screen = dialog.querySelector(".screen")
const away = dialog.querySelector(".away")
const list = dialog.querySelector("ul")
let camera = null
let faces = null

export function open(name) {
  if (!store.cameras.includes(name)) return
  camera = name
  faces?.clear()
  list.replaceChildren()
  faces = new FaceList(list, name, true)
  if (!dialog.open) dialog.showModal()
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height)
  canvas.setAttribute("aria-label", `Live picture of ${name}`)
  show(canvas, name, "full")
  history.replaceState(null, "", `#camera=${encodeURIComponent(name)}`)
  update()
}

function close() {
  if (dialog.open) return // opened again before the browser told of the close
  hide(canvas)
  faces?.clear()
  camera = faces = null
  document.getElementById("tip").hidden = true
  history.replaceState(null, "", location.pathname)
}

function step(by) {
  const { cameras } = store
  open(cameras[(cameras.indexOf(camera) + by + cameras.length) % cameras.length])
}

function update() {
  if (!camera) return
  write(document.getElementById("focus-title"), camera)
  const figures = store.snapshot?.cameras[camera]
  const note = figures ? `${rate(figures.fps)} frames/s · ${ms(figures.latency_ms?.p50)} ms from capture to here` : ""
  write(document.getElementById("focus-note"), note)
  showCondition(screen, away, camera)
  faces.update()
}

export function start() {
  canvas.setAttribute("role", "img")
  dialog.addEventListener("close", close)
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1)
    if (event.key === "ArrowRight") step(1)
  })
  document.getElementById("focus-close").onclick = () => dialog.close()
  document.getElementById("focus-previous").onclick = () => step(-1)
  document.getElementById("focus-next").onclick = () => step(1)
  for (const what of ["faces", "samples", "snapshot"]) on(what, update)
  on("theme", () => faces?.clear())
  const asked = () => new URLSearchParams(location.hash.slice(1)).get("camera")
  let first = true
  on("hello", () => {
    faces?.clear()
    // Of a graph that has another one's address now: what it asks for in vain would cost the page all its pictures.
    if (camera && !store.cameras.includes(camera)) dialog.close()
    if (first && asked()) open(asked())
    first = false
  })
  window.addEventListener("hashchange", () => {
    if (asked() && asked() !== camera) open(asked())
    else if (!asked() && dialog.open) dialog.close()
  })
}
