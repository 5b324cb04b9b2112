/** Weights in the device's memory, and products with them. */

import {
  checkIndices,
  isQuantized,
  type Kernels,
  LowbitError,
  type PlacedPart,
  type PlacedWords,
  placeWords,
  planWords,
  releaseWords,
  validateMatrix,
  type Weight,
} from '@lowbit/core'
import type { Arguments, Device, Span } from './driver/device.ts'
import { blocksOf, expect } from './tensors.ts'

type Operations = Pick<Kernels, 'load' | 'unload' | 'matmul' | 'gather'>

interface Loaded extends PlacedWords<Span> {
  /** What kernels are told of each part's words. */
  readonly args: readonly Arguments[]
}

/** Rows of x that the vector product takes; the outputs of a block of it; the side of a tile of the matrix product. */
const FEW_ROWS = 4
const OUTPUTS = 4
const TILE = 32

const flag = (on: boolean): number => (on ? 1 : 0)

function argumentsOf({ layout, params, span: w }: PlacedPart<Span>): Arguments {
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
      const plan = planWords(matrix)
      const rounded = activations === 'f32' ? '' : ` (no ${activations} products on CUDA yet)`
      const placed = placeWords(matrix, plan, device)
      const { rows, columns } = matrix
      const variant = `${plan.variant}${rounded}`
      const weight: Weight = { rows, columns, bytes: placed.bytes, variant }
      loaded.set(weight, { ...placed, args: placed.parts.map(argumentsOf) })
      return weight
    },

    unload(weight) {
      releaseWords(find(weight), device)
      loaded.delete(weight)
    },

    matmul(target, input, weight, { accumulate = false } = {}) {
      const { parts, args, order, columnScale, columnBias } = find(weight)
      const { rows, columns } = weight
      const x = expect(input, input.rows, columns, 'x')
      const out = expect(target, x.rows, rows, 'out')
      const tokens = x.rows
      const multiply = (arranged: Span): void => {
        for (const [i, { layout, from }] of parts.entries()) {
          const few = tokens <= FEW_ROWS
          device.run(
            `${few ? 'vector' : 'matrix'}_${layout.kind}`,
            {
              ...{ ...args[i], x: arranged, out, tokens, x_row: columns, x_from: from },
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
      const { parts, args, order, columnScale, columnBias } = find(weight)
      const { rows, columns } = weight
      if (picked) checkIndices(picked, rows)
      const lines = picked?.length ?? rows
      const out = expect(target, lines, columns, 'out')
      const whole = parts.length === 1 && parts[0].params.depth === columns
      if (!whole) device.zero(out)
      const take = (some: Span | undefined): void => {
        for (const [i, { layout, params, from }] of parts.entries()) {
          const count = lines * params.depth
          const sizes = { count, out_row: columns, begin: from, keep: flag(!whole) }
          const spans = { picked: some, order, out }
          device.run(`gather_${layout.kind}`, { ...args[i], ...spans, ...sizes }, blocksOf(count))
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
