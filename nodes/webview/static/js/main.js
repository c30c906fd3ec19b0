// Puts the page together.

import * as cameras from "./cameras.js"
import * as focus from "./focus.js"
import { clock, write } from "./format.js"
import { connect, on, store } from "./store.js"
import * as system from "./system.js"
import * as video from "./video.js"

const find = (id) => document.getElementById(id)

function showLink() {
  const words = { connecting: "Connecting", live: "Live", down: "Disconnected" }
  document.body.dataset.link = store.link
  write(find("link-text"), words[store.link])
  const offline = find("offline")
  offline.hidden = store.link !== "down"
  if (store.link === "down") {
    write(offline, `Disconnected since ${clock(store.linkSince)}: what you see is old. Trying again by itself.`)
  }
}

/** What was chosen last time; a browser that keeps nothing for this page throws at the mere question. */
const layout = {
  get wall() {
    try {
      return Boolean(localStorage.getItem("emograph.wall"))
    } catch {
      return false
    }
  },
  set wall(wall) {
    try {
      localStorage.setItem("emograph.wall", wall ? "1" : "")
    } catch {}
  },
}

function setLayout(wall) {
  document.body.classList.toggle("wall", wall)
  find("as-wall").setAttribute("aria-pressed", wall)
  find("as-details").setAttribute("aria-pressed", !wall)
  layout.wall = wall
}

find("as-wall").onclick = () => setLayout(true)
find("as-details").onclick = () => setLayout(false)
setLayout(layout.wall)

on("link", showLink)
cameras.start(focus.open)
focus.start()
system.start()
video.start()
connect()
