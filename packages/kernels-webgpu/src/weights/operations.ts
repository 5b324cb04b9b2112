/** Weights in the device's memory, and products with them. */

import {
  checkIndices,
  isQuantized,
  type Kernels,
  type LoadOptions,
  LowbitError,
  type PackedWords,
  type PlacedPart,
  type PlacedWords,
  placeWords,
  planWords,
  releaseWords,
  validateMatrix,
  type Weight,
  WORD_BLOCK,
  type WordMemory,
} from '@lowbit/core'
import { groupsOf } from '../algebra/product.ts'
import { borrowing, type Device, type Span } from '../gpu/device.ts'
import { elementwise, groupwise } from '../gpu/shader.ts'
import { expect } from '../tensors.ts'
import { BLOCK_WORDS, byteMatrixShader, byteVectorShader, roundShader } from './bytes.ts'
import {
  FEW_ROWS,
  gatherShader,
  halfMatrixShader,
  largestShader,
  matrixShader,
  OUTPUTS,
  vectorShader,
} from './shaders.ts'
import { bySubgroups, subgroupGroups, subgroupShader } from './subgroups.ts'

type Activations = NonNullable<LoadOptions['activations']>
type Operations = Pick<Kernels, 'load' | 'unload' | 'matmul' | 'gather'>

type Part = PlacedPart<Span>

/** Sums of a tile in f16, 16 products with numbers up to 1, stay below 65,504. */
const fitsHalves = ({ reach }: PackedWords): boolean => reach() < 4000

interface Loaded extends PlacedWords<Span> {
  /** What x may be rounded to: `f16` only where the weights are small enough. */
  readonly activations: Activations
}

/** x as the stored columns want it: x[order[i]] · columnScale[order[i]]. */
const arrange = elementwise('arrange', {
  reads: { x: 'f32', order: 'u32', factors: 'f32' },
  writes: { out: 'f32' },
  params: { columns: 'u32', ordered: 'u32', scaled: 'u32' },
  body: `
  let row = i / p.columns;
  var begin = i % p.columns;
  if (p.ordered == 1u) { begin = order[p.order_at + begin]; }
  var value = x[p.x_at + row * p.columns + begin];
  if (p.scaled == 1u) { value *= factors[p.factors_at + begin]; }
  out[p.out_at + i] = value;`,
})

/** A bias of columns adds Σ_k x[t, k] · bias[k] to all outputs of a row. */
const addBias = groupwise('bias of columns', {
  reads: { x: 'f32', bias: 'f32' },
  writes: { out: 'f32' },
  params: { columns: 'u32', rows: 'u32' },
  body: `
  var sum = 0.0;
  for (var k = lane; k < p.columns; k += lanes) {
    sum += x[p.x_at + group * p.columns + k] * bias[p.bias_at + k];
  }
  let shift = total_of(lane, sum);
  for (var n = lane; n < p.rows; n += lanes) { out[p.out_at + group * p.rows + n] += shift; }`,
})

/** Rows of a gathered matrix get their columns' factors and biases. */
const finish = elementwise('columns of gathered rows', {
  reads: { factors: 'f32', bias: 'f32' },
  writes: { out: 'f32' },
  params: { columns: 'u32', scaled: 'u32', biased: 'u32' },
  body: `
  let k = i % p.columns;
  var value = out[p.out_at + i];
  if (p.scaled == 1u) { value *= factors[p.factors_at + k]; }
  if (p.biased == 1u) { value += bias[p.bias_at + k]; }
  out[p.out_at + i] = value;`,
})

export function weightOperations(device: Device): Operations {
  const loaded = new Map<Weight, Loaded>()

  function find(weight: Weight): Loaded {
    const found = loaded.get(weight)
    if (found) return found
    throw new LowbitError('bad-tensor', 'the weight was unloaded, or belongs to other kernels')
  }

  const memory: WordMemory<Span> = {
    place: (values) => device.allocate(values.length, values),
    release: (span) => device.release(span),
  }

  /** Memory for one call, given back when its operations are recorded: what is recorded later runs later. */
  function borrow<T>(length: number, work: (span: Span) => T): T {
    const span = device.allocate(length)
    try {
      return work(span)
    } finally {
      device.release(span)
    }
  }

  return {
    load(matrix, { activations = 'f32' } = {}) {
      if (isQuantized(matrix)) validateMatrix(matrix, 'the weight')
      const plan = planWords(matrix)
      const { packed } = plan
      const halves = activations === 'f16' && packed.every(fitsHalves)
      const variant = `${plan.variant}${seenBy(device, packed, activations, halves)}`
      const placed = placeWords(matrix, plan, memory)
      const { rows, columns } = matrix
      const weight: Weight = { rows, columns, bytes: placed.bytes, variant }
      const allowed = activations === 'f16' && !halves ? 'f32' : activations
      loaded.set(weight, { ...placed, activations: allowed })
      return weight
    },

    unload(weight) {
      releaseWords(find(weight), memory)
      loaded.delete(weight)
    },

    matmul(target, input, weight, { accumulate = false } = {}) {
      const { activations, parts, order, columnScale, columnBias } = find(weight)
      const { rows, columns } = weight
      const x = expect(input, input.rows, columns, 'x')
      const out = expect(target, x.rows, rows, 'out')
      const multiply = (arranged: Span): void => {
        for (const [i, part] of parts.entries()) {
          multiplyPart(device, part, activations, {
            ...{ out, x: arranged, tokens: x.rows, columns, keep: accumulate || i > 0 },
          })
        }
      }
      if (order || columnScale) {
        borrow(x.length, (arranged) => {
          const spans = { x, order: order ?? x, factors: columnScale ?? x, out: arranged }
          const flags = { ordered: order ? 1 : 0, scaled: columnScale ? 1 : 0 }
          const count = x.length
          device.run(arrange, spans, { count, columns, ...flags }, Math.ceil(count / 64))
          multiply(arranged)
        })
      } else multiply(x)
      if (columnBias) device.run(addBias, { x, bias: columnBias, out }, { columns, rows }, x.rows)
    },

    gather(target, weight, picked) {
      const { parts, order, columnScale, columnBias } = find(weight)
      const { rows, columns } = weight
      if (picked) checkIndices(picked, rows)
      const lines = picked?.length ?? rows
      const out = expect(target, lines, columns, 'out')
      const flags = { some: picked ? 1 : 0, ordered: order ? 1 : 0 }
      for (const [i, { layout, span, params, from }] of parts.entries()) {
        if (i === 0 && (parts.length > 1 || params.depth < columns)) device.zero(out)
        const count = lines * params.depth
        const some = picked ? device.constant(picked) : span
        device.run(
          gatherShader(layout),
          { w: span, picked: some, order: order ?? span, out },
          {
            ...params,
            ...flags,
            count,
            out_row: columns,
            begin: from,
            keep: parts.length > 1 ? 1 : 0,
          },
          Math.ceil(count / 64),
        )
      }
      if (columnScale || columnBias) {
        const [factors, bias] = [columnScale ?? columnBias, columnBias ?? columnScale]
        device.run(
          finish,
          { factors: factors!, bias: bias!, out },
          {
            ...{ count: out.length, columns },
            ...{ scaled: columnScale ? 1 : 0, biased: columnBias ? 1 : 0 },
          },
          Math.ceil(out.length / 64),
        )
      }
    },
  }
}

interface Multiplied {
  readonly out: Span
  readonly x: Span
  readonly tokens: number
  /** Of x. */
  readonly columns: number
  /** Whether the product is added to what `out` holds. */
  readonly keep: boolean
}

function multiplyPart(
  device: Device,
  part: Part,
  activations: Activations,
  multiplied: Multiplied,
): void {
  const { layout, span, params, from } = part
  const { out, x, tokens, columns, keep } = multiplied
  const rows = params.rows
  const shared = { x_row: columns, x_from: from, tokens, keep: keep ? 1 : 0 }
  const spans = { x, w: span, out }
  const few = tokens <= FEW_ROWS
  const { vector, matrix, vectorInt8, matrixInt8, matrixF16 } = device.choices
  if (activations === 'int8' && part.bytes && (few ? vectorInt8 : matrixInt8) === 'dots') {
    multiplyBytes(device, part, multiplied)
    return
  }
  if (activations === 'f16' && !few && matrixF16 === 'f16') {
    borrowing(device, (take) => {
      const largest = take(tokens)
      device.run(largestShader, { x, largest }, { depth: params.depth, ...shared }, tokens)
      const sizes = { ...params, ...shared, rows: tokens, columns: rows }
      device.run(halfMatrixShader(layout), { ...spans, largest }, sizes, groupsOf(tokens, rows))
    })
    return
  }
  const size = device.subgroup
  if (size > 0 && bySubgroups(layout) && (few ? vector : matrix) === 'subgroups') {
    const groups = subgroupGroups(tokens, rows, few)
    const sizes = { ...params, ...shared, columns: rows }
    device.run(subgroupShader(layout, size, few ? tokens : undefined), spans, sizes, groups)
    return
  }
  if (few) {
    const groups = Math.ceil(rows / (layout.along === 'in' ? OUTPUTS : layout.length))
    device.run(vectorShader(layout, tokens), spans, { ...params, ...shared }, groups)
    return
  }
  const whole = { ...params, ...shared, rows: tokens, columns: rows }
  device.run(matrixShader(layout), spans, whole, groupsOf(tokens, rows))
}

/** x is rounded to bytes, then met. */
function multiplyBytes(
  device: Device,
  { layout, span, params, from }: Part,
  { out, x, tokens, columns, keep }: Multiplied,
): void {
  const { rows, depth } = params
  const blocks = Math.ceil(depth / WORD_BLOCK)
  borrowing(device, (take) => {
    const [q, factors] = [take(tokens * blocks * BLOCK_WORDS), take(tokens * blocks * 2)]
    const sizes = { blocks, x_row: columns, x_from: from }
    const count = tokens * blocks
    const rounding = { count, depth, ...sizes }
    device.run(roundShader(layout.bits), { x, q, factors }, rounding, Math.ceil(count / 64))
    const few = tokens <= FEW_ROWS
    device.run(
      few ? byteVectorShader(layout, tokens) : byteMatrixShader(layout),
      { q, factors, w: span, out },
      { ...params, ...sizes, tokens, keep: keep ? 1 : 0 },
      few ? Math.ceil(rows / OUTPUTS) : groupsOf(tokens, rows),
    )
  })
}

/** What is said of x where it may be rounded: how, or why it isn't. */
function seenBy(
  device: Device,
  packed: readonly PackedWords[],
  activations: Activations,
  halves: boolean,
): string {
  const { vectorInt8, matrixInt8, matrixF16 } = device.choices
  if (activations === 'f16') {
    if (!device.halves) return ' (no f16 on this device)'
    if (!halves) return ' (f16 needs weights below 4,000)'
    return matrixF16 === 'f16' ? `, f16 from ${FEW_ROWS + 1} rows` : ' (f16 is slower here)'
  }
  if (activations === 'f32') return ''
  if (activations !== 'int8') return ` (no ${activations} on WebGPU)`
  if (!packed.every(({ bytes }) => bytes)) return ' (int8 needs integers in groups of 32)'
  const rows = [vectorInt8 === 'dots' && 'few', matrixInt8 === 'dots' && 'many'].filter(Boolean)
  if (rows.length > 0) return `, int8 with ${rows.join(' and ')} rows`
  return device.dots ? ' (int8 is slower here)' : ' (no dot products of bytes on this device)'
}
