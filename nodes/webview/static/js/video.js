// Live pictures: one message with the newest of all watched cameras, asked for whenever this page has drawn the last.
// A slow browser so skips frames, and nobody waits for it.

import { Channel } from "./channel.js"

const wanted = new Map() // canvas -> { camera, size, shown }
let channel
let drawing = false

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
}

/** Say what is to be seen; a page that nobody sees asks for nothing. */
function watch() {
  if (document.hidden || !channel) return
  const cameras = {}
  for (const { camera, size } of wanted.values()) if (size === "full" || !cameras[camera]) cameras[camera] = size
  channel.send({ watch: cameras })
  if (!drawing) channel.send({ ready: 1 })
}

async function take(data) {
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
