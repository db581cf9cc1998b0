// What every picture is made of.

const COLOURS = {
  light: { ink: '#1f2328', soft: '#59636e', line: '#d1d9e0', fill: '#f6f8fa', a: '#0969da', b: '#bc4c00', c: '#1a7f37', d: '#8250df', e: '#cf222e' },
  dark: { ink: '#e6edf3', soft: '#9198a1', line: '#3d444d', fill: '#212830', a: '#4493f8', b: '#f0883e', c: '#3fb950', d: '#ab7df8', e: '#f85149' },
}
const variables = (colours) => Object.entries(colours).map(([name, colour]) => `--pic-${name}:${colour}`).join(';')
const STYLE = `<style>svg{${variables(COLOURS.light)}}@media(prefers-color-scheme:dark){svg{${variables(COLOURS.dark)}}}</style>`

/** The colour of that name, for `fill` and `stroke`. */
export const colour = (name) => `var(--pic-${name})`

/** A whole picture; `title` is read out to those who cannot see it. */
export function picture(width, height, title, parts) {
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" font-family="system-ui, sans-serif" font-size="13">`
  const marker = (name) =>
    `<marker id="arrow-${name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="${colour(name)}"/></marker>`
  return `${head}\n<title>${escape(title)}</title>\n${STYLE}\n<defs>${['ink', 'a', 'b', 'c', 'soft'].map(marker).join('')}</defs>\n${parts.flat(Infinity).filter(Boolean).join('\n')}\n</svg>\n`
}

export function text(x, y, words, { size = 13, fill = 'ink', anchor = 'start', weight, mono } = {}) {
  const more = `${weight ? ` font-weight="${weight}"` : ''}${mono ? ' font-family="ui-monospace, monospace"' : ''}${size === 13 ? '' : ` font-size="${size}"`}`
  return `<text x="${round(x)}" y="${round(y)}" text-anchor="${anchor}" fill="${colour(fill)}"${more}>${escape(words)}</text>`
}

export function line(x1, y1, x2, y2, { stroke = 'ink', width = 1.5, dash, arrow } = {}) {
  return path(`M${round(x1)} ${round(y1)}L${round(x2)} ${round(y2)}`, { stroke, width, dash, arrow })
}

export function path(d, { stroke = 'ink', width = 1.5, dash, arrow, fill = 'none', opacity } = {}) {
  return `<path d="${d}" fill="${fill}" stroke="${stroke === 'none' ? 'none' : colour(stroke)}" stroke-width="${width}"${dash ? ` stroke-dasharray="${dash}"` : ''}${arrow ? ` marker-end="url(#arrow-${stroke})"` : ''}${opacity ? ` opacity="${opacity}"` : ''}/>`
}

/** A box with words in the middle: the first line stronger than the others. */
export function box(x, y, width, height, lines, { stroke = 'ink' } = {}) {
  const top = y + height / 2 - (lines.length - 1) * 8.5 + 4.5
  return [
    `<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="6" fill="${colour('fill')}" stroke="${colour(stroke)}" stroke-width="1.5"/>`,
    lines.map((words, at) => text(x + width / 2, top + at * 17, words, { anchor: 'middle', weight: at === 0 ? 600 : undefined, fill: at === 0 ? 'ink' : 'soft', size: at === 0 ? 13 : 12 })),
  ]
}

export const round = (value) => Math.round(value * 10) / 10

function escape(words) {
  return words.replace(/[&<>]/g, (sign) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[sign])
}
