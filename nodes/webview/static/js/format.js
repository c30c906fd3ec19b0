// Small helpers: elements, numbers and times as text. Text is always set as text, never as markup.

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  set(element, attributes)
  element.append(...children.filter((child) => child !== null))
  return element
}

const SVG = "http://www.w3.org/2000/svg"

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag)
  set(element, attributes)
  element.append(...children)
  return element
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value)
    else if (value === true) element.setAttribute(name, "")
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value)
  }
}

/** Set an element's text, and touch nothing when it is that already (no needless layout, no needless speech). */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text
}

export const count = (value) =>
  value < 100_000 ? String(value) : value < 1e7 ? `${(value / 1e3).toFixed(0)}k` : `${(value / 1e6).toFixed(1)}M`

export const rate = (value) => value.toFixed(value < 100 ? 1 : 0)

export const ms = (value) => (value === null || value === undefined ? "–" : value < 9.95 ? value.toFixed(1) : value.toFixed(0))

export const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(100 * value)} %`)

export const clock = (unixMs) => new Date(unixMs).toLocaleTimeString([], { hourCycle: "h23" })

export function lasting(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
}
