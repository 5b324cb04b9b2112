/**
 * Pictures of one matrix: its palette over the histogram of weights (or over how often codes are used), or the
 * entries of its codebooks as points.
 */

import {
  decode,
  isQuantized,
  LowbitError,
  type Matrix,
  type QuantizedMatrix,
  type ScalarGrid,
  type Stage,
} from '@lowbit/core'
import type { Markish, PlotOptions } from '@observablehq/plot'
import { describeMatrix } from '../describe-matrix.ts'
import { percent } from '../figures.ts'
import type { Drawing } from './drawing.ts'
import { finiteRange, type Histogram, histogram } from './histogram.ts'
import {
  denseValues,
  inGridUnits,
  stageColumns,
  type UsedTables,
  usedTables,
} from './palette-use.ts'
import { caption, captionAbove } from './words.ts'

export interface MatrixPlot {
  readonly module: string
  readonly matrix: Matrix
  /** The same matrix of another model, usually the original. */
  readonly reference?: { readonly model: string; readonly matrix: Matrix }
}

export function plotMatrix({ Plot }: Drawing, plot: MatrixPlot): PlotOptions {
  const { module, matrix, reference } = plot
  if (reference) refuseOtherShape(plot)
  if (!isQuantized(matrix)) {
    const values = denseValues(matrix)
    return {
      marks: [
        ...bars(Plot, histogram(values, finiteRange(values), BARS)),
        ...caption(Plot, module, `${size(matrix)}, ${matrix.type}: not quantized`),
      ],
      ...AXES,
      x: { label: 'weight', labelAnchor: 'center' },
    }
  }
  const palette = asPalette(matrix.stages[0])
  if (palette) return plotPalette(Plot, plot, matrix, palette)
  if (reference) {
    throw new LowbitError(
      'bad-option',
      `--reference gives a histogram of weights, but ${module} is stored in codebooks of vectors; leave it out`,
      { option: 'reference', tensor: module },
    )
  }
  return plotCodebooks(Plot, module, matrix)
}

type Library = Drawing['Plot']

type ScalarStage = Stage & { readonly grid: ScalarGrid }

const BARS = 160
const AXES = {
  y: { label: 'share of weights', labelAnchor: 'center', tickFormat: '~%', grid: true, nice: true },
} as const

/** A codebook of single weights is a palette. */
function asPalette(stage: Stage): ScalarStage | undefined {
  const { grid } = stage
  if (grid.kind !== 'codebook') return { ...stage, grid }
  return grid.length === 1 ? { ...stage, grid: { ...grid, kind: 'lookup' } } : undefined
}

const size = ({ rows, columns }: Matrix): string => `${rows} × ${columns}`

function refuseOtherShape({ module, matrix, reference }: MatrixPlot): void {
  const other = reference!.matrix
  if (other.rows === matrix.rows && other.columns === matrix.columns) return
  throw new LowbitError(
    'bad-option',
    `--reference ${reference!.model}: its ${module} is ${size(other)}, not ${size(matrix)}; it is another model`,
    { option: 'reference', tensor: module },
  )
}

function plotPalette(
  Plot: Library,
  { module, reference }: MatrixPlot,
  matrix: QuantizedMatrix,
  stage: ScalarStage,
): PlotOptions {
  if (reference && matrix.rotation) {
    throw new LowbitError(
      'bad-option',
      `--reference: ${module} is stored rotated, so that its palette is not of the original's weights; leave it out`,
      { option: 'reference', tensor: module },
    )
  }
  const used = usedTables(stage, matrix)
  const values = used.tables.flatMap((table) => [...table].filter(Number.isFinite))
  const [least, most] = finiteRange(values)
  // What lies a little beyond the outermost values is rounded to them.
  const margin = (most - least) * 0.08
  const range = [least - margin, most + margin] as const
  const shown = reference
    ? histogram(inGridUnits(weightsOf(reference.matrix), stage, matrix), range, BARS)
    : undefined
  const scaled = stage.scale || matrix.rowScale || matrix.columnScale
  const { entries, tables } = used
  const what = [
    `${size(matrix)}, ${describeMatrix(matrix)}`,
    ...(matrix.stages.length > 1 ? [`first of ${matrix.stages.length} stages`] : []),
  ].join('; ')
  const which =
    tables.length === 1
      ? `the palette's ${entries} values`
      : `${tables.length} palettes of ${entries} values`
  const below = reference
    ? `bars: weights of ${reference.model}, ${percent(shown!.outside / weightCount(stage, matrix))} beyond the picture; lines: ${which}`
    : `height: how often a code is used; ${which}`
  return {
    ...AXES,
    x: {
      label: scaled ? "weight in its scale's units" : 'weight',
      labelAnchor: 'center',
      domain: range,
    },
    marks: [
      ...(shown ? [...bars(Plot, shown), ...rules(Plot, values, tables.length)] : uses(Plot, used)),
      Plot.ruleY([0]),
      ...caption(Plot, module, what, below),
    ],
  }
}

function weightsOf(matrix: Matrix): Float32Array {
  return isQuantized(matrix) ? decode(matrix) : denseValues(matrix)
}

const weightCount = (stage: Stage, matrix: QuantizedMatrix): number =>
  matrix.rows * stageColumns(stage, matrix).columns

function bars(Plot: Library, { bars }: Histogram): Markish[] {
  return [
    Plot.rectY(bars, { x1: 'from', x2: 'to', y: 'share', fill: '#9ecae1', inset: 0 }),
    Plot.ruleY([0]),
  ]
}

function rules(Plot: Library, values: readonly number[], tables: number): Markish[] {
  const strokeOpacity = Math.max(0.03, values.length > 64 ? 0.5 / tables ** 0.5 : 1 / tables ** 0.5)
  return [Plot.ruleX(values, { stroke: '#d62728', strokeWidth: 1.2, strokeOpacity })]
}

/** One value, one needle; the values of many palettes, counted in bars. */
function uses(Plot: Library, { tables, uses }: UsedTables): Markish[] {
  const all = uses.reduce((sum, table) => sum + table.reduce((a, b) => a + b, 0), 0)
  const values = Float32Array.from(tables.flatMap((table) => [...table]))
  const counts = Float64Array.from(uses.flatMap((table) => [...table]))
  if (tables.length > 1) {
    return [
      ...bars(Plot, histogram(values, finiteRange(values), BARS, counts)),
      ...rules(Plot, [...values].filter(Number.isFinite), tables.length),
    ]
  }
  const needles = Array.from(values, (value, code) => ({ value, share: counts[code] / all }))
  const finite = needles.filter(({ value }) => Number.isFinite(value))
  return [
    Plot.ruleX(finite, { x: 'value', y: 'share', stroke: '#d62728', strokeWidth: 1.5 }),
    Plot.dot(finite, { x: 'value', y: 'share', fill: '#d62728', r: finite.length > 64 ? 2 : 4 }),
  ]
}

/** Height of the names of codebooks above their frames. */
const FACET_NAMES = 25
/** Points of a picture; of larger codebooks those that are used most. */
const MOST_POINTS = 5000

interface Point {
  readonly book: string
  readonly x: number
  readonly y: number
  readonly uses: number
}

function plotCodebooks(Plot: Library, module: string, matrix: QuantizedMatrix): PlotOptions {
  const books = matrix.stages.map((stage, i) => codebook(stage, i, matrix))
  const points = books.flatMap(({ points }) => points)
  const most = [...points].sort((a, b) => b.uses - a.uses).slice(0, MOST_POINTS)
  const left =
    points.length > most.length ? `; the ${most.length} used most of ${points.length}` : ''
  const unused = points.filter(({ uses }) => uses === 0).length
  return {
    ...(books.length > 1 && { fx: { label: null, domain: books.map(({ name }) => name) } }),
    x: { label: 'first weight of the vector', labelAnchor: 'center', ticks: 5 },
    y: { label: 'second weight', labelAnchor: 'center', grid: true },
    r: { range: [0, points.length > 400 ? 7 : 12] },
    marginTop: FACET_NAMES * Number(books.length > 1) + 70,
    marks: [
      Plot.frame({ stroke: '#ccc' }),
      Plot.ruleX([0], { stroke: '#ddd' }),
      Plot.ruleY([0], { stroke: '#ddd' }),
      Plot.dot(most, {
        ...{ ...(books.length > 1 && { fx: 'book' }), x: 'x', y: 'y', r: 'uses' },
        ...{ fill: '#1f77b4', fillOpacity: 0.45, stroke: '#1f77b4', strokeWidth: 0.5 },
      }),
      ...captionAbove(
        Plot,
        FACET_NAMES * Number(books.length > 1),
        module,
        `${size(matrix)}, ${describeMatrix(matrix)}`,
        `area: how often an entry is used (${unused} of ${points.length} never)${left}`,
      ),
    ],
  }
}

function codebook(stage: Stage, index: number, matrix: QuantizedMatrix) {
  const { from, to } = stageColumns(stage, matrix)
  const { length, entries, tables, uses } = usedTables(stage, matrix)
  const part = to - from < matrix.columns ? `, columns ${from} to ${to - 1}` : ''
  const name = `codebook ${index + 1}: ${entries} × ${length}${part}`
  const points: Point[] = tables.flatMap((table, i) =>
    Array.from({ length: entries }, (_, code) => ({
      book: name,
      x: table[code * length],
      // A vector of one weight, beside stages of longer ones, lies on the axis.
      y: length > 1 ? table[code * length + 1] : 0,
      uses: uses[i][code],
    })),
  )
  return { name, points }
}
