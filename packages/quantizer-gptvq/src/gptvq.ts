/**
 * GPTVQ (van Baalen et al., 2402.15319): GPTQ with vectors of consecutive columns. A group of columns × rows shares a
 * codebook, fitted when the pass reaches it, on the weights as earlier errors have left them; the nearest
 * entry is nearest in the metric of the inverse Hessian.
 */

import {
  assertFinite,
  type CodedPart,
  definePlugin,
  factorHessian,
  packCodes,
  type QuantizedMatrix,
  type QuantizedNumbers,
  type QuantizeInput,
  type Quantizer,
  requireHessian,
  type Tensor,
  updateTables,
} from '@lowbit/core'
import { type LogScales, logScales } from './log-scales.ts'
import { type GptvqScheme, gptvqOptions, gptvqScheme, groupShape } from './options.ts'
import { storeTables } from './tables.ts'

export const gptvq = definePlugin(
  {
    name: 'gptvq',
    summary: 'vectors along the columns, codebooks fitted as the error feedback goes',
    source: 'van Baalen et al., 2402.15319',
    options: gptvqOptions,
  },
  (options): Quantizer => {
    const scheme = gptvqScheme(options)
    return {
      kind: 'quantizer',
      name: 'gptvq',
      options,
      needs: { hessian: true },
      label: scheme.label,
      quantize: (input) => quantize(input, gptvqScheme(options, input.weight)),
    }
  },
)

async function quantize(input: QuantizeInput, scheme: GptvqScheme): Promise<QuantizedMatrix> {
  const { kernels, weight, name } = input
  const hessian = requireHessian('gptvq', input)
  const { rows, columns } = weight
  await assertFinite(kernels, weight, name)
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  try {
    const importance = own(kernels.tensor(1, columns))
    kernels.diagonal(importance, hessian)
    const diagonal = await kernels.read(importance)
    const { factor } = await factorHessian(
      ...([kernels, hessian, diagonal, undefined, scheme.damping, name] as const),
    )
    own(factor)
    const { normalizeColumns } = scheme
    const scales =
      normalizeColumns > 0 ? await logScales(kernels, weight, normalizeColumns) : undefined
    const layout = groupsOf(scheme, rows, columns)
    const pass: Pass = { ...input, hessian, scheme, factor, scales, layout, own, parts: [] }
    const rowScale = scales && own(kernels.upload(scales.values, rows, scales.stored.columns))
    for (let round = 0; round < scheme.rounds; round++) {
      await runPass(pass, rowScale, round === 0)
      if (scheme.updates > 0) {
        const { parts, signal } = pass
        await updateTables({
          ...{ kernels, weight, hessian, parts, iterations: scheme.updates, signal },
        })
      }
    }
    return await assemble(pass)
  } finally {
    kernels.free(...owned)
  }
}

interface Layout {
  /** Columns of a group, and rows that share its codebook. */
  readonly groupColumns: number
  readonly groupRows: number
  /** Groups of rows: codebooks for each group of columns. */
  readonly tables: number
}

function groupsOf(scheme: GptvqScheme, rows: number, columns: number): Layout {
  const shape = groupShape(scheme, rows, columns)
  return { ...shape, tables: Math.ceil(rows / shape.groupRows) }
}

interface Pass extends QuantizeInput {
  readonly hessian: Tensor
  readonly scheme: GptvqScheme
  readonly factor: Tensor
  readonly scales: LogScales | undefined
  readonly layout: Layout
  readonly own: (tensor: Tensor) => Tensor
  /** Groups of columns in order, filled by the first pass. */
  readonly parts: CodedPart[]
}

async function runPass(pass: Pass, rowScale: Tensor | undefined, fits: boolean): Promise<void> {
  const { kernels, weight, factor, scheme, layout, own, parts } = pass
  const { rows, columns } = weight
  const { length, entries } = scheme
  const working = kernels.tensor(rows, columns)
  try {
    kernels.copy(working, weight)
    for (let from = 0, i = 0; from < columns; from += layout.groupColumns, i++) {
      pass.signal?.throwIfAborted()
      const to = Math.min(columns, from + layout.groupColumns)
      if (fits) {
        const values = own(kernels.tensor(layout.tables * entries, length))
        await fitGroup(pass, values, working, from, to)
        const codes = own(kernels.tensor(rows, Math.ceil((to - from) / length), 'u16'))
        parts.push({
          codes: [codes],
          options: {
            ...{ length, along: 'in', from, to, tableRows: layout.groupRows, rowScale },
            ...{
              tables: [{ values, entries }],
              scaleColumns: scheme.normalizeColumns || undefined,
            },
          },
        })
      }
      const { codes, options } = parts[i]
      kernels.feedbackVectors(codes, working, factor, options)
    }
  } finally {
    kernels.free(working)
  }
}

/** k-means of the columns [from, to), each vector's weight from the inverse Hessian. */
async function fitGroup(
  { kernels, scheme, layout, scales, factor, seed }: Pass,
  tables: Tensor,
  working: Tensor,
  from: number,
  to: number,
): Promise<void> {
  const { rows } = working
  const { length, entries, iterations, seeding, normalizeColumns } = scheme
  const width = Math.ceil((to - from) / length)
  const window = Uint32Array.from({ length: to - from }, (_, i) => from + i)
  const part = kernels.tensor(rows, to - from)
  kernels.permuteColumns(part, working, window)
  const values = await kernels.read(part)
  kernels.free(part)
  // Vectors side by side; the last of a row is filled up with zeros.
  const vectors = (to - from) % length === 0 ? values : new Float32Array(rows * width * length)
  for (let row = 0; vectors !== values && row < rows; row++) {
    const at = row * (to - from)
    vectors.set(values.subarray(at, at + to - from), row * width * length)
  }
  if (scales) {
    const blocks = scales.stored.columns
    for (let i = 0; i < vectors.length; i++) {
      const row = Math.floor(i / (width * length))
      const column = from + (i % (width * length))
      vectors[i] /= scales.values[row * blocks + Math.floor(column / normalizeColumns)] || 1
    }
  }
  const u = await diagonalOf(kernels, factor)
  const weights = new Float32Array(rows * width)
  for (let v = 0; v < width; v++) {
    let sum = 0
    let count = 0
    for (let j = from + v * length; j < Math.min(to, from + (v + 1) * length); j++, count++) {
      sum += 1 / (u[j] * u[j])
    }
    for (let row = 0; row < rows; row++) weights[row * width + v] = sum / count
  }
  const points = kernels.upload(vectors, rows * width, length)
  const factors = kernels.upload(weights, rows * width, 1)
  kernels.cluster(tables, points, {
    ...{ groupRows: layout.groupRows * width, entries, weights: factors, iterations, seeding },
    seed: seed ^ from,
  })
  kernels.free(points, factors)
  const stored = storeTables(await kernels.read(tables), layout.tables, scheme.tableType)
  kernels.write(tables, stored.values)
}

async function diagonalOf(kernels: Pass['kernels'], matrix: Tensor): Promise<Float32Array> {
  const diagonal = kernels.tensor(1, matrix.columns)
  kernels.diagonal(diagonal, matrix)
  const values = await kernels.read(diagonal)
  kernels.free(diagonal)
  return values
}

async function assemble(pass: Pass): Promise<QuantizedMatrix> {
  const { kernels, weight, scheme, layout, scales, parts } = pass
  const { rows, columns } = weight
  const { length, entries } = scheme
  const across = Math.ceil(columns / length)
  const codes = new Uint16Array(rows * across)
  const perTable = entries * length
  const found = new Float32Array(layout.tables * parts.length * perTable)
  for (const [i, { codes: own, options }] of parts.entries()) {
    const part = await kernels.readCodes(own[0])
    const width = own[0].columns
    const start = (options.from ?? 0) / length
    for (let row = 0; row < rows; row++) {
      codes.set(part.subarray(row * width, (row + 1) * width), row * across + start)
    }
    const values = await kernels.read(options.tables[0].values)
    // Blocks count row by row: the tables of one group of rows lie side by side.
    for (let table = 0; table < layout.tables; table++) {
      const from = values.subarray(table * perTable, (table + 1) * perTable)
      found.set(from, (table * parts.length + i) * perTable)
    }
  }
  const { tables, tableScale } = storeTables(found, layout.tables * parts.length, scheme.tableType)
  return {
    rows,
    columns,
    stages: [
      {
        codes: packCodes(codes, Math.max(1, Math.ceil(Math.log2(entries)))),
        vector: { length, along: 'in' },
        grid: {
          ...{ kind: 'codebook', entries, length, tables },
          ...(tableScale && { tableScale }),
          blocks: { rows: layout.groupRows, columns: layout.groupColumns },
        },
        ...(scales && { scale: scaleOf(scales.stored, scheme.normalizeColumns) }),
      },
    ],
  }
}

const scaleOf = (values: QuantizedNumbers, columns: number) => ({
  blocks: { rows: 1, columns },
  values,
})
