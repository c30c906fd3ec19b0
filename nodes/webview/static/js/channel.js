// A WebSocket that comes back by itself.

const FIRST_WAIT = 500
const LONGEST_WAIT = 5000

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
    this.socket.onopen = () => {
      this.wait = FIRST_WAIT
      this.on.open?.()
    }
    this.socket.onmessage = (event) => this.on.message(event.data)
    this.socket.onclose = () => {
      this.on.down?.()
      setTimeout(() => this.connect(), this.wait)
      this.wait = Math.min(LONGEST_WAIT, 2 * this.wait)
    }
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message))
  }

  /** The other side is silent: begin anew. */
  drop() {
    this.socket.close()
  }
}
