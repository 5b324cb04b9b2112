/** The plot library, which only those install who want pictures. */

import { LowbitError } from '@lowbit/core'
import type { Drawing } from '@lowbit/inspection'
import type { PlotOptions } from '@observablehq/plot'

export interface SvgDrawing extends Drawing {
  /** The plot as the text of an SVG file, on white. */
  draw(options: PlotOptions): string
}

export async function loadDrawing(): Promise<SvgDrawing> {
  const [Plot, { parseHTML }] = await Promise.all([
    import('@observablehq/plot'),
    import('linkedom'),
  ]).catch((cause: unknown) => {
    if ((cause as { code?: unknown }).code !== 'ERR_MODULE_NOT_FOUND') throw cause
    throw new LowbitError(
      'missing-package',
      '--plot draws with two packages that do not come with lowbit: npm install @observablehq/plot linkedom (with --global where lowbit is)',
      { option: 'plot', cause },
    )
  })
  return {
    Plot,
    draw(options) {
      const { document } = parseHTML('<html><body></body></html>')
      const svg = Plot.plot({ ...FRAME, ...options, document })
      svg.setAttribute('xmlns', 'http://www.w3.org/2000/svg')
      // Viewers without CSS show a root's background as black or not at all.
      const paper = document.createElementNS('http://www.w3.org/2000/svg', 'rect')
      for (const [name, value] of Object.entries({
        width: '100%',
        height: '100%',
        fill: 'white',
      })) {
        paper.setAttribute(name, value)
      }
      svg.insertBefore(paper, svg.firstChild)
      return `<?xml version="1.0" encoding="UTF-8"?>\n${svg.outerHTML}\n`
    },
  }
}

const FRAME: PlotOptions = {
  width: 900,
  height: 500,
  marginTop: 70,
  marginLeft: 70,
  marginBottom: 50,
  marginRight: 30,
  style: { fontSize: '13px', fontFamily: 'sans-serif' },
}
