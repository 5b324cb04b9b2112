/** Pictures of a whole model: a line for each role over the layers. */

import { type Checkpoint, LowbitError } from '@lowbit/core'
import type { Markish, PlotOptions } from '@observablehq/plot'
import { type Place, placesOf, ROLE_NAMES } from '../linears.ts'
import { REPORT, type ReportedModule } from '../report-file.ts'
import type { Drawing } from './drawing.ts'
import { caption } from './words.ts'

/** What bits are drawn of; an Inspection has it, and so does a report. */
export interface BitsByModule {
  readonly bitsPerWeight: number
  readonly tensors: readonly { readonly module: string; readonly bits: number }[]
}

interface Point extends Place {
  readonly value: number
}

export function plotErrors(
  { Plot }: Drawing,
  name: string,
  checkpoint: Pick<Checkpoint, 'config' | 'location'>,
  reported: ReadonlyMap<string, ReportedModule> | undefined,
): PlotOptions {
  if (!reported) {
    throw new LowbitError(
      'no-report',
      `--plot errors is drawn from ${REPORT}, which ${name} lacks: lowbit quantize writes it`,
      { file: checkpoint.location, option: 'plot' },
    )
  }
  const places = placesOf(checkpoint).filter(({ module }) => reported.has(module))
  const points = places.map((place) => ({ ...place, value: reported.get(place.module)!.error }))
  const kinds = new Set(places.map(({ module }) => reported.get(module)!.errorOf))
  const of = kinds.size === 1 ? [...kinds][0] : 'layer'
  const values = points.map(({ value }) => value)
  const wide = Math.min(...values) > 0 && Math.max(...values) > 30 * Math.min(...values)
  return {
    ...layers(Plot, points),
    y: {
      ...{ label: `share of the ${of}'s power that is lost`, labelAnchor: 'center', grid: true },
      ...(wide ? { type: 'log', tickFormat: percents } : { tickFormat: percents, zero: true }),
    },
    marks: [
      ...lines(Plot, points),
      ...caption(
        Plot,
        `${of[0].toUpperCase()}${of.slice(1)} error by layer`,
        `${name}: ${methods(places, reported)}`,
      ),
    ],
  }
}

export function plotBits(
  { Plot }: Drawing,
  name: string,
  checkpoint: Pick<Checkpoint, 'config'>,
  { tensors, bitsPerWeight }: BitsByModule,
): PlotOptions {
  const bits = new Map(tensors.map((tensor) => [tensor.module, tensor.bits]))
  const points = placesOf(checkpoint)
    .filter(({ module }) => bits.has(module))
    .map((place) => ({ ...place, value: bits.get(place.module)! }))
  return {
    ...layers(Plot, points),
    y: {
      label: 'counted bits per weight',
      labelAnchor: 'center',
      grid: true,
      zero: true,
      nice: true,
    },
    marks: [
      ...lines(Plot, points),
      Plot.ruleY([bitsPerWeight], { stroke: '#555', strokeDasharray: '4 3' }),
      ...caption(
        Plot,
        'Bits per weight by layer',
        `${name}: ${bitsPerWeight.toFixed(3)} on the whole (dashed), tables that matrices share included there only`,
      ),
    ],
  }
}

/** 0.0123 → "1.23%", without zeros at the end. */
const percents = (share: number): string => `${Number((100 * share).toPrecision(3))}%`

function methods(places: readonly Place[], reported: ReadonlyMap<string, ReportedModule>): string {
  const labels = new Set(
    places.map(({ module }) => {
      const { method, label } = reported.get(module)!
      return `${method} ${label}`
    }),
  )
  return labels.size > 2 ? `${labels.size} settings` : [...labels].join('; ')
}

const rolesOf = (points: readonly Place[]): string[] =>
  Object.values(ROLE_NAMES).filter((role) => points.some((point) => point.role === role))

function layers(_: Drawing['Plot'], points: readonly Point[]): PlotOptions {
  const last = points.reduce((most, { layer }) => Math.max(most, layer), 0)
  return {
    marginTop: 85,
    x: {
      ...{ label: 'layer', labelAnchor: 'center', domain: [0, Math.max(1, last)] },
      ...{ ticks: Math.min(last + 1, 20), tickFormat: 'd', insetLeft: 10, insetRight: 10 },
    },
    color: { domain: rolesOf(points), scheme: 'observable10' },
  }
}

function lines(Plot: Drawing['Plot'], points: readonly Point[]): Markish[] {
  const channels = { x: 'layer', y: 'value', stroke: 'role' }
  return [
    Plot.line(points, { ...channels, strokeWidth: 1.5 }),
    Plot.dot(points, { ...channels, fill: 'role', r: 2.5 }),
    // Plot's own legend would be HTML beside the SVG.
    ...rolesOf(points).flatMap((role, i) => {
      const place = { frameAnchor: 'top-left', dx: 6 + 60 * i } as const
      return [
        Plot.dot([role], { ...place, dy: -14, fill: (name: string) => name, r: 4.5 }),
        Plot.text([role], {
          ...place,
          text: (name: string) => name,
          dx: 16 + 60 * i,
          dy: -14,
          lineAnchor: 'middle',
        }),
      ]
    }),
  ]
}
