// Reads emograph's events in Node.js: node subscriber.cjs tcp://127.0.0.1:5556 [PREFIX]
const zmq = require("zeromq")
const { decode } = require("@msgpack/msgpack")

async function main([endpoint, prefix = "emotion/"]) {
  const began = BigInt(Date.now()) * 1000000n
  const socket = new zmq.Subscriber()
  socket.subscribe(prefix) // or "emotion/door/", "emotion/door/change"
  socket.connect(endpoint)

  const last = new Map() // sequence number by topic and publisher
  const ended = new Set() // cameras
  for await (const [topic, payload] of socket) {
    // Nanoseconds since 1970 are above 2^53: as BigInt they stay exact.
    const event = decode(payload, { useBigInt64: true })
    if (event.version !== 1) throw new Error(`protocol version ${event.version} is not known here`)
    const key = `${topic} ${event.run}`
    const wasThere = (event.run_ns ?? 0n) > began // when the run began; else this program joined it later
    const before = last.get(key) ?? (wasThere ? 0 : event.sequence)
    event.lost = Math.max(0, event.sequence - before - (event.snapshot ? 0 : 1))
    last.set(key, event.sequence)
    console.log(JSON.stringify(event, (_, value) => (typeof value === "bigint" ? value.toString() : value)))
    if (event.kind !== "status") continue
    if (event.what === "ended") ended.add(event.camera)
    else ended.delete(event.camera)
    const cameras = event.cameras ?? [event.camera] // all of them; some are not for this prefix
    if (cameras.filter((name) => `emotion/${name}/status`.startsWith(prefix)).every((name) => ended.has(name))) break
  }
}

main(process.argv.slice(2))
