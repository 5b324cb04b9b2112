/**
 * VPTQ (Liu et al., 2409.17066): vectors of consecutive rows of one column take the nearest entry of a codebook, and
 * each column's error is fed into the columns not yet done. Within a column all weights have the same
 * second-order factor, so the nearest entry is nearest by plain distance.
 */

import {
  assertFinite,
  columnOrder,
  definePlugin,
  factorHessian,
  inverseOrder,
  type Numbers,
  packCodes,
  type QuantizedMatrix,
  type QuantizeInput,
  type Quantizer,
  randomRotation,
  requireHessian,
  rotateLayer,
  type Stage,
  seededRandom,
  type Tensor,
} from '@lowbit/core'
import { type Assigned, assignCodes, type Part } from './assign.ts'
import { type Codebook, columnVectors, fitCodebook, residuals } from './codebook.ts'
import { divideByNorm, findNorm, type Norm } from './normalize.ts'
import { type VptqScheme, vptqOptions, vptqScheme } from './options.ts'
import { fitSharedTables, type Tables } from './shared-tables.ts'

export const vptq = definePlugin(
  {
    name: 'vptq',
    summary: 'vectors along the rows in codebooks, with second-order error feedback',
    source: 'Liu et al., 2409.17066',
    options: vptqOptions,
  },
  (options): Quantizer => {
    const scheme = vptqScheme(options)
    const quantizer = (scheme: VptqScheme, shared?: Tables): Quantizer => ({
      kind: 'quantizer',
      name: 'vptq',
      options,
      needs: { hessian: true },
      label: scheme.label,
      // Without shared tables each matrix has vectors that fit its own size.
      quantize: (input) =>
        quantize(input, shared ? scheme : vptqScheme(options, [input.weight]), shared),
    })
    if (scheme.tables === 'matrix') return quantizer(scheme)
    return {
      ...quantizer(scheme),
      async prepare(input) {
        const known = vptqScheme(options, input.weights)
        return quantizer(known, await fitSharedTables(input, known))
      },
    }
  },
)

async function quantize(
  input: QuantizeInput,
  scheme: VptqScheme,
  shared: Tables | undefined,
): Promise<QuantizedMatrix> {
  const { kernels, name, signal } = input
  let { weight } = input
  let hessian = requireHessian('vptq', input)
  const { rows, columns } = weight
  await assertFinite(kernels, weight, name)
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  try {
    const rotation =
      scheme.rotation === 'input' ? randomRotation(columns, seededRandom(input.seed)) : undefined
    if (rotation) {
      ;({ weight, hessian } = rotateLayer(kernels, weight, hessian, rotation))
      own(weight)
      own(hessian)
    }
    const importance = own(kernels.tensor(1, columns))
    kernels.diagonal(importance, hessian)
    const diagonal = await kernels.read(importance)
    const outliers = scheme.outlier
      ? Math.min(columns - 1, Math.round(scheme.outliers * columns))
      : 0
    // Outlier columns come first, whatever the order of the others.
    const order = columnOrder(outliers > 0 ? 'activation' : scheme.order, diagonal, columns)
    const { factor, lambda } = await factorHessian(
      ...([kernels, hessian, diagonal, order, scheme.damping, name] as const),
    )
    own(factor)
    let [sorted, sortedHessian] = [weight, hessian]
    if (order) {
      sorted = own(kernels.tensor(rows, columns))
      kernels.permuteColumns(sorted, weight, order)
      const across = kernels.tensor(columns, columns)
      kernels.permuteColumns(across, hessian, order)
      const turned = kernels.tensor(columns, columns)
      kernels.transpose(turned, across)
      sortedHessian = own(across)
      kernels.permuteColumns(sortedHessian, turned, order)
      kernels.free(turned)
    }
    const norm = await findNorm(kernels, sorted, scheme.norm)
    const spans = columnSpans(columns, outliers, scheme.groups)
    const sortedDiagonal = order ? Float32Array.from(order, (i) => diagonal[i]) : diagonal
    const tables =
      shared ?? (await ownTables(input, scheme, { sorted, sortedDiagonal, norm, spans, outliers }))
    const parts = spans.map(({ from, to, outlier }, i): Part => {
      if (outlier) return { from, to, books: [tables.outlier!] }
      const group = tables.main.length > 1 ? i - (outliers > 0 ? 1 : 0) : 0
      const residual = tables.residual?.[group]
      return { from, to, books: [tables.main[group], ...(residual ? [residual] : [])] }
    })
    signal?.throwIfAborted()
    const assigned = await assignCodes({
      ...{ kernels, weight: sorted, hessian: sortedHessian, factor, damping: lambda, parts, norm },
      ...{ sweeps: scheme.sweeps, refits: scheme.refits, signal },
      updates: shared ? 0 : scheme.updates,
    })
    const matrix = assemble(rows, columns, assigned, order)
    return rotation ? { ...matrix, rotation: { input: rotation } } : matrix
  } finally {
    kernels.free(...owned)
  }
}

interface Span {
  readonly from: number
  readonly to: number
  readonly outlier: boolean
}

/** The outlier columns, then the others in groups as equal as can be. */
function columnSpans(columns: number, outliers: number, groups: number): Span[] {
  const rest = columns - outliers
  const count = Math.min(groups, rest)
  const edge = (i: number): number => outliers + Math.floor((i * rest) / count)
  const main = Array.from({ length: count }, (_, i) => ({
    ...{ from: edge(i), to: edge(i + 1), outlier: false },
  }))
  return outliers > 0 ? [{ from: 0, to: outliers, outlier: true }, ...main] : main
}

/** Codebooks of this matrix alone, by k-means weighted with each column's diag(H) (section 3.2). */
async function ownTables(
  { kernels, seed, signal }: QuantizeInput,
  scheme: VptqScheme,
  layer: {
    readonly sorted: Tensor
    readonly sortedDiagonal: Float32Array
    readonly norm: Norm
    readonly spans: readonly Span[]
    readonly outliers: number
  },
): Promise<Tables> {
  const { sorted, sortedDiagonal, norm, spans } = layer
  const random = seededRandom(seed)
  const { rows, columns } = sorted
  const x = kernels.tensor(rows, columns)
  try {
    divideByNorm(kernels, x, sorted, norm)
    const settings = {
      kernels,
      iterations: scheme.iterations,
      type: scheme.tableType,
      random,
      signal,
    }
    const main: Codebook[] = []
    const residual: Codebook[] = []
    let outlier: Codebook | undefined
    for (const span of spans) {
      const shape = span.outlier ? scheme.outlier! : scheme.main
      const perColumn = Math.ceil(rows / shape.length)
      const size = perColumn * shape.length
      const all = await columnVectors(kernels, x, shape.length)
      const values = all.slice(span.from * size, span.to * size)
      const weights = new Float32Array((span.to - span.from) * perColumn)
      for (let column = span.from; column < span.to; column++) {
        const scale = norm.columnScale?.values[column] ?? 1
        const importance = sortedDiagonal[column] * scale * scale
        weights.fill(
          importance,
          (column - span.from) * perColumn,
          (column - span.from + 1) * perColumn,
        )
      }
      const samples = { values, weights: weights.some((w) => w > 0) ? weights : undefined }
      const book = await fitCodebook(shape, samples, settings)
      if (span.outlier) {
        outlier = book
        continue
      }
      main.push(book)
      if (scheme.residual) {
        const left = { ...samples, values: await residuals(kernels, values, book) }
        residual.push(await fitCodebook(scheme.residual, left, settings))
      }
    }
    return { main, ...(scheme.residual && { residual }), ...(outlier && { outlier }) }
  } finally {
    kernels.free(x)
  }
}

/** Without outliers and groups the codes go back into the natural order, and no order is stored. */
function assemble(
  rows: number,
  columns: number,
  { codes, norm, parts }: Assigned,
  order: Uint32Array | undefined,
): QuantizedMatrix {
  const whole = parts.length === 1
  const inverse = order && inverseOrder(order)
  const natural = (numbers: Numbers): Numbers =>
    inverse ? { ...numbers, values: Float32Array.from(inverse, (i) => numbers.values[i]) } : numbers
  const stages = parts.flatMap(({ from, to, books }, p) =>
    books.map(({ grid }, i): Stage => {
      const length = grid.length
      const ordered = whole && inverse ? reorder(codes[p][i], columns, inverse) : codes[p][i]
      return {
        ...(!whole && { columns: [from, to] as const }),
        codes: packCodes(ordered, Math.max(1, Math.ceil(Math.log2(grid.entries)))),
        vector: { length, along: 'out' },
        grid,
      }
    }),
  )
  const { rowScale, columnScale, columnBias } = norm
  return {
    rows,
    columns,
    stages,
    ...(!whole && order && { order }),
    ...(rowScale && { rowScale }),
    ...(columnScale && { columnScale: natural(columnScale) }),
    ...(columnBias && { columnBias: natural(columnBias) }),
  }
}

/** out[:, j] = codes[:, from[j]] */
function reorder(codes: Uint16Array, columns: number, from: Uint32Array): Uint16Array {
  const out = new Uint16Array(codes.length)
  for (let row = 0; row < codes.length; row += columns) {
    for (let j = 0; j < columns; j++) out[row + j] = codes[row + from[j]]
  }
  return out
}
