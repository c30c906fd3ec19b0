// Live pictures: one message with the newest of all watched cameras, asked for whenever this page has drawn the last.
// A slow browser so skips frames, and nobody waits for it.

import { Channel } from "./channel.js"
import { on, store } from "./store.js"

const SILENT_AFTER = 8000
const LONGEST_SILENCE = 60000
const ON_THE_WAY = 2000 // ms from a frame's count to its picture, at the most

const wanted = new Map() // canvas -> { camera, size, shown }
let channel
let drawing = false
let delivered = new Map() // camera -> frames, by the newest snapshot
let heard = 0 // when the last picture came, or was asked for anew
let missing = null // since when frames come to the server, and no picture to this page
let patience = SILENT_AFTER // ms; doubles until a picture comes, for a thin line may be only slow

/** Show a camera on a canvas. size: "tile" or "full". drawn: called after each picture. */
export function show(canvas, camera, size, drawn = () => {}) {
  wanted.set(canvas, { camera, size, drawn })
  watch()
}

export function hide(canvas) {
  if (wanted.delete(canvas)) watch()
}

export function start() {
  channel = new Channel("/ws/video", { open: watch, message: take })
  document.addEventListener("visibilitychange", watch)
  on("snapshot", check)
  on("link", () => {
    if (store.link === "down") channel.drop() // what broke the one has likely broken the other
  })
}

/** Say what is to be seen; a page that nobody sees asks for nothing. */
function watch() {
  hear()
  if (document.hidden || !channel) return
  const cameras = Object.create(null) // a camera may be called `constructor`
  for (const { camera, size } of wanted.values()) {
    if (store.cameras.includes(camera) && (size === "full" || !cameras[camera])) cameras[camera] = size
  }
  channel.send({ watch: cameras })
  if (!drawing) channel.send({ ready: 1 })
}

function hear() {
  heard = Date.now()
  missing = null
}

/** A connection that broke without a word (the machine slept) would show its last picture for good. */
function check() {
  const now = Date.now()
  const watched = new Set([...wanted.values()].map(({ camera }) => camera))
  const counts = Object.entries(store.snapshot?.cameras ?? {}).map(([camera, figures]) => [camera, figures.delivered])
  const moving = counts.some(([camera, count]) => watched.has(camera) && count > delivered.get(camera))
  delivered = new Map(counts)
  if (document.hidden) return
  if (moving && now - heard > ON_THE_WAY) missing ??= now
  if (missing && now - missing > patience) {
    patience = Math.min(LONGEST_SILENCE, 2 * patience)
    hear()
    channel.drop()
  }
}

async function take(data) {
  hear()
  patience = SILENT_AFTER
  drawing = true
  const view = new DataView(data)
  const length = view.getUint32(0)
  const index = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)))
  let at = 4 + length
  const pictures = index.map((picture) => {
    const jpeg = new Blob([new Uint8Array(data, at, picture.bytes)], { type: "image/jpeg" })
    at += picture.bytes
    return draw(picture, jpeg)
  })
  await Promise.allSettled(pictures)
  drawing = false
  if (!document.hidden) channel.send({ ready: 1 })
}

async function draw({ camera, number, wall }, jpeg) {
  const bitmap = await createImageBitmap(jpeg)
  for (const [canvas, target] of wanted) {
    if (target.camera !== camera) continue
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width
      canvas.height = bitmap.height
    }
    canvas.getContext("2d", { alpha: false }).drawImage(bitmap, 0, 0)
    canvas.dataset.number = number
    target.drawn(wall)
  }
  bitmap.close()
}
