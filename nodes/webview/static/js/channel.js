// A WebSocket that comes back by itself.

const FIRST_WAIT = 500
const LONGEST_WAIT = 5000
const ANSWER_WITHIN = 10000 // a browser alone waits for minutes

export class Channel {
  /** path: on this server. on: open(), message(data), down(). */
  constructor(path, on) {
    this.url = new URL(path, location.href.replace(/^http/, "ws"))
    this.on = on
    this.wait = FIRST_WAIT
    this.connect()
  }

  connect() {
    this.socket = new WebSocket(this.url)
    this.socket.binaryType = "arraybuffer"
    this.timer = setTimeout(() => this.drop(), ANSWER_WITHIN)
    this.socket.onopen = () => {
      clearTimeout(this.timer)
      this.wait = FIRST_WAIT
      this.on.open?.()
    }
    this.socket.onmessage = (event) => this.on.message(event.data)
    this.socket.onclose = () => {
      clearTimeout(this.timer)
      this.timer = setTimeout(() => this.connect(), this.wait)
      this.wait = Math.min(LONGEST_WAIT, 2 * this.wait)
      this.on.down?.()
    }
  }

  get open() {
    return this.socket.readyState === WebSocket.OPEN
  }

  send(message) {
    if (this.open) this.socket.send(JSON.stringify(message))
  }

  /** The other side is silent: begin anew. Waits for no farewell: a browser gives a dead connection a minute for it. */
  drop() {
    const { socket } = this
    socket.onopen = socket.onmessage = socket.onclose = null
    socket.close()
    clearTimeout(this.timer)
    this.connect()
    this.on.down?.()
  }
}
