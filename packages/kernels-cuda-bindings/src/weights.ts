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
  type Stage,
  validateMatrix,
  type Weight,
  type WordLayout,
} from '@lowbit/core'
import { type DecodedWords, type Halves, multiplyDecoded, placeRowFactors } from './decoded.ts'
import type { Arguments, Device, Span } from './driver/device.ts'
import { blocksOf, expect } from './tensors.ts'
import { canTile, isE4M3, multiplyTiles, placeTiles, type Seen, type TiledPart } from './tiles.ts'

type Operations = Pick<Kernels, 'load' | 'unload' | 'matmul' | 'gather'>

type Activations = NonNullable<LoadOptions['activations']>

/** A stage in words, or in tiles, which meet x rounded. */
type Part = WordsPart | (TiledPart & { readonly kind: 'tiles' })

interface WordsPart extends DecodedWords {
  readonly kind: WordLayout['kind']
  readonly span: Span
  /** What they and more than a few rows of x are rounded to; f32 meets f32 otherwise. */
  readonly halves?: Halves
  readonly rowFactors?: Span
}

interface Loaded extends Pick<PlacedWords<Span>, 'order' | 'columnScale' | 'columnBias'> {
  readonly parts: readonly Part[]
}

/** Rows of x that the vector product takes; the outputs of a block of it; the side of a tile of the matrix product. */
const FEW_ROWS = 4
const OUTPUTS = 8
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

/** Of compute capabilities: the first with mma of E4M3, and of bf16. */
const FP8 = 8.9
const BF16 = 8

/** What x may be rounded to where a stage goes into tiles; none where there are no tiles for it. */
function tilesFor(
  device: Device,
  packed: PackedWords,
  stage: Stage | undefined,
  activations: Activations,
): Seen | undefined {
  if (activations === 'fp8' && device.capability >= FP8 && isE4M3(packed, stage)) return 'fp8'
  if (!canTile(packed)) return undefined
  return activations === 'int8' ? 'bytes' : 'f16'
}

/**
 * What words become where tiles are not for them. Dense weights are f32's where x may be rounded to bytes alone, which
 * is meant for quantized ones.
 */
function halvesFor(
  device: Device,
  { layout }: PackedWords,
  activations: Activations,
): Halves | undefined {
  const dense = layout.kind !== 'integer' && layout.kind !== 'table'
  if (dense && activations !== 'f16' && activations !== 'bf16') return undefined
  return dense && activations === 'bf16' && device.capability >= BF16 ? 'bf16' : 'f16'
}

/** What is said of x where it may be rounded. */
function seenBy(parts: readonly Part[], activations: Activations): string {
  if (activations === 'f32') return ''
  const seen = parts.map((part) => {
    if (part.kind === 'tiles') return part.seen === 'bytes' ? 'int8' : part.seen
    return part.halves && `${part.halves} from ${FEW_ROWS + 1} rows on`
  })
  const each = [...new Set(seen)]
  if (each.every((one) => one === undefined)) return ` (${activations} is for quantized matrices)`
  return `, ${each.map((one) => one ?? 'f32').join(' and ')} on tensor cores`
}

function spansOf({ parts, order, columnScale, columnBias }: Loaded): Span[] {
  const more = parts.map((part) => (part.kind === 'tiles' ? part.scales : part.rowFactors))
  const all = [...parts.map(({ span }) => span), ...more, order, columnScale, columnBias]
  return all.filter((span) => span !== undefined)
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
      const { parts: placed, bytes: _, ...columns } = placeWords(matrix, plan, device)
      const parts = placed.map((part): Part => {
        const { layout, params, span, from } = part
        const { rows, depth } = params
        return { kind: layout.kind, span, rows, depth, from, args: argumentsOf(part) }
      })
      const found = { ...columns, parts }
      try {
        for (const [i, packed] of plan.packed.entries()) {
          const part = parts[i]
          if (activations === 'f32' || part.kind === 'tiles') continue
          const stage = isQuantized(matrix) && plan.fused ? matrix.stages[i] : undefined
          const seen = tilesFor(device, packed, stage, activations)
          if (seen) {
            parts[i] = { kind: 'tiles', ...placeTiles(device, packed, part.args, seen) }
            device.release(part.span)
            continue
          }
          const halves = halvesFor(device, packed, activations)
          if (!halves) continue
          parts[i] = { ...part, halves, rowFactors: placeRowFactors(device, part, halves) }
        }
      } catch (error) {
        for (const span of spansOf(found)) device.release(span)
        throw error
      }
      const bytes = spansOf(found).reduce((sum, span) => sum + span.bytes, 0)
      const variant = `${plan.variant}${seenBy(parts, activations)}`
      const weight: Weight = { rows: matrix.rows, columns: matrix.columns, bytes, variant }
      loaded.set(weight, found)
      return weight
    },

    unload(weight) {
      for (const span of spansOf(find(weight))) device.release(span)
      loaded.delete(weight)
    },

    matmul(target, input, weight, { accumulate = false } = {}) {
      const { parts, order, columnScale, columnBias } = find(weight)
      const { rows, columns } = weight
      const x = expect(input, input.rows, columns, 'x')
      const out = expect(target, x.rows, rows, 'out')
      const tokens = x.rows
      const multiply = (arranged: Span): void => {
        for (const [i, part] of parts.entries()) {
          const keep = accumulate || i > 0
          if (part.kind === 'tiles') {
            multiplyTiles(device, part, { out, x: arranged, tokens, columns, keep })
            continue
          }
          const few = tokens <= FEW_ROWS
          if (part.halves && !few) {
            const shape = { out, x: arranged, tokens, columns, keep }
            multiplyDecoded(device, part, part.halves, part.rowFactors, shape)
            continue
          }
          const shape = { tokens, x_row: columns, x_from: part.from, keep: flag(keep) }
          device.run(
            `${few ? 'vector' : 'matrix'}_${part.kind}`,
            { ...part.args, ...shape, x: arranged, out },
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
        for (const part of parts) {
          const { kind, depth, from } = part
          const count = lines * depth
          const sizes = { count, out_row: columns, begin: from, keep: flag(!whole) }
          const spans = { picked: some, order, out }
          const more = kind === 'tiles' ? { depth, bits: part.bits, floats: flag(part.floats) } : {}
          const args = { ...part.args, ...more, ...spans, ...sizes }
          device.run(`gather_${kind}`, args, blocksOf(count))
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
