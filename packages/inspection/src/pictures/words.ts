/** Titles inside the picture: Plot's own would wrap the SVG in HTML. */

import type { Markish } from '@observablehq/plot'
import type { Drawing } from './drawing.ts'

/** A title and lines of small print above the frame. */
export function caption(Plot: Drawing['Plot'], title: string, ...lines: string[]): Markish[] {
  return captionAbove(Plot, 0, title, ...lines)
}

/** The same with room below it, for the names of facets. */
export function captionAbove(
  Plot: Drawing['Plot'],
  room: number,
  title: string,
  ...lines: string[]
): Markish[] {
  const above = { frameAnchor: 'top-left', lineAnchor: 'bottom', dx: -55, facet: 'super' } as const
  const text = (words: string, dy: number, style: object): Markish =>
    Plot.text([words], { ...above, ...{ text: (line: string) => line, dy }, ...style })
  return [
    text(title, -48 - room, { fontSize: 17, fontWeight: 'bold' }),
    ...lines.map((line, i) => text(line, -30 - room + 17 * i, { fill: '#555', fontSize: 12.5 })),
  ]
}
