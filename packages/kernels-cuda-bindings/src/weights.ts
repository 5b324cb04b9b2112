/** Weights in the device's memory, and products with them. */

import {
  checkIndices,
  isQuantized,
  type Kernels,
  LowbitError,
  type PackedWords,
  planWords,
  validateMatrix,
  type Weight,
  type WordLayout,
} from '@lowbit/core'
import type { Arguments, Device, Span } from './driver/device.ts'
import { blocksOf, expect } from './tensors.ts'

type Operations = Pick<Kernels, 'load' | 'unload' | 'matmul' | 'gather'>

interface Part {
  /** Of the kernels: `vector_integer`, `gather_table`, … */
  readonly kind: WordLayout['kind']
  readonly span: Span
  /** What kernels are told of the words. */
  readonly args: Arguments
  readonly depth: number
  readonly from: number
}

interface Loaded {
  readonly parts: readonly Part[]
  /** Input feature of each stored column. */
  readonly order?: Span
  readonly columnScale?: Span
  readonly columnBias?: Span
}

/** Rows of x that the vector product takes; the outputs of a block of it; the side of a tile of the matrix product. */
const FEW_ROWS = 4
const OUTPUTS = 4
const TILE = 32

const flag = (on: boolean): number => (on ? 1 : 0)

function argumentsOf({ layout, params }: Omit<PackedWords, 'words'>, w: Span): Arguments {
  const { bits, length, along, even, scale, zero, bias, rowScale } = layout
  return {
    ...{ ...params, w, bits, length, along_out: flag(along === 'out'), even: flag(even) },
    ...{ has_scale: flag(scale), has_zero: flag(zero), has_bias: flag(bias) },
    has_row_scale: flag(rowScale),
  }
}

export function weightOperations(device: Device): Operations {
  const loaded = new Map<Weight, Loaded>()

  function find(weight: Weight): Loaded {
    const found = loaded.get(weight)
    if (found) return found
    throw new LowbitError('bad-tensor', 'the weight was unloaded, or belongs to other kernels')
  }

  return {
    load(matrix, { activations = 'f32' } = {}) {
      if (isQuantized(matrix)) validateMatrix(matrix, 'the weight')
      const { packed, variant: weights } = planWords(matrix)
      const rounded = activations === 'f32' ? '' : ` (no ${activations} products on CUDA yet)`
      const variant = `${weights}${rounded}`
      const spans: Span[] = []
      const add = (values: Uint32Array | Float32Array): Span => {
        const span = device.place(values)
        spans.push(span)
        return span
      }
      try {
        const parts = packed.map(({ words, ...rest }): Part => {
          const { layout, params, from } = rest
          const span = add(words)
          const args = argumentsOf(rest, span)
          return { kind: layout.kind, span, args, depth: params.depth, from }
        })
        const fused = isQuantized(matrix) && !weights.startsWith('dense') ? matrix : undefined
        const { rows, columns } = matrix
        const terms = {
          order: fused?.order && add(fused.order),
          columnScale: fused?.columnScale && add(fused.columnScale.values),
          columnBias: fused?.columnBias && add(fused.columnBias.values),
        }
        const bytes = spans.reduce((sum, span) => sum + span.bytes, 0)
        const weight: Weight = { rows, columns, bytes, variant }
        loaded.set(weight, { parts, ...terms })
        return weight
      } catch (error) {
        for (const span of spans) device.release(span)
        throw error
      }
    },

    unload(weight) {
      const { parts, order, columnScale, columnBias } = find(weight)
      loaded.delete(weight)
      for (const span of [...parts.map((part) => part.span), order, columnScale, columnBias]) {
        if (span) device.release(span)
      }
    },

    matmul(target, input, weight, { accumulate = false } = {}) {
      const { parts, order, columnScale, columnBias } = find(weight)
      const { rows, columns } = weight
      const x = expect(input, input.rows, columns, 'x')
      const out = expect(target, x.rows, rows, 'out')
      const tokens = x.rows
      const multiply = (arranged: Span): void => {
        for (const [i, { kind, args, from }] of parts.entries()) {
          const few = tokens <= FEW_ROWS
          device.run(
            `${few ? 'vector' : 'matrix'}_${kind}`,
            {
              ...{ ...args, x: arranged, out, tokens, x_row: columns, x_from: from },
              keep: flag(accumulate || i > 0),
            },
            few ? Math.ceil(rows / OUTPUTS) : Math.ceil(rows / TILE) * Math.ceil(tokens / TILE),
          )
        }
      }
      if (order || columnScale) {
        device.borrow(device.allocate(x.bytes), (arranged) => {
          const count = tokens * columns
          const spans = { x, order, factors: columnScale, out: arranged }
          device.run('arrange', { ...spans, count, columns }, blocksOf(count))
          multiply(arranged)
        })
      } else multiply(x)
      if (columnBias) {
        device.run('add_column_bias', { x, bias: columnBias, out, columns, rows }, tokens)
      }
    },

    gather(target, weight, picked) {
      const { parts, order, columnScale, columnBias } = find(weight)
      const { rows, columns } = weight
      if (picked) checkIndices(picked, rows)
      const lines = picked?.length ?? rows
      const out = expect(target, lines, columns, 'out')
      const whole = parts.length === 1 && parts[0].depth === columns
      if (!whole) device.zero(out)
      const take = (some: Span | undefined): void => {
        for (const { kind, args, depth, from } of parts) {
          const count = lines * depth
          const sizes = { count, out_row: columns, begin: from, keep: flag(!whole) }
          const spans = { picked: some, order, out }
          device.run(`gather_${kind}`, { ...args, ...spans, ...sizes }, blocksOf(count))
        }
      }
      if (picked) device.borrow(device.place(picked), take)
      else take(undefined)
      if (columnScale || columnBias) {
        const count = lines * columns
        const spans = { out, factors: columnScale, bias: columnBias }
        device.run('finish_gather', { ...spans, count, columns }, blocksOf(count))
      }
    },
  }
}
