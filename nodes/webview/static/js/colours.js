// The overlay's colours, moved only as far as they must be to be seen on what lies behind them.

const ENOUGH = 2.6 // contrast of a coloured area against what lies behind it

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16))

function luminance(rgb) {
  const [r, g, b] = rgb.map((value) => {
    const v = value / 255
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}

function contrast(one, other) {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a)
  return (high + 0.05) / (low + 0.05)
}

/** `colour` (#rrggbb), darker on a light background and lighter on a dark one until it stands out. */
export function adapt(colour, background) {
  const behind = channels(background)
  const towards = luminance(behind) > 0.4 ? 0 : 255
  let rgb = channels(colour)
  for (let step = 0; step < 40 && contrast(rgb, behind) < ENOUGH; step += 1) {
    rgb = rgb.map((value) => value + (towards - value) * 0.06)
  }
  return `rgb(${rgb.map(Math.round).join(" ")})`
}
