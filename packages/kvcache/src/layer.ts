/** What one layer keeps: the oldest tokens in codes, the first few and the newest as they are. */

import {
  bytesOfTensor,
  type CacheGrid,
  type CacheShape,
  type CodedRows,
  codebookSize,
  codeColumns,
  ENTRIES,
  type Kernels,
  type KeyTurn,
  resized,
  roomFor,
  scaleColumns,
  type Tensor,
} from '@lowbit/core'
import type { Positions } from './positions.ts'

export interface LayerOptions {
  readonly keys: CacheGrid
  readonly values: CacheGrid
  /** The first tokens of a text, which all later ones look at, stay as they are. */
  readonly sinks: number
  /** The newest tokens that stay as they are, at least. */
  readonly window: number
  /** The newest tokens that stay at all, at least; 0: all do. */
  readonly slide: number
  /** Numbers of a token that are kept beside its codes, of keys and of values. */
  readonly outliers: readonly [number, number]
  /** Of keys and of values, where channels are coupled. */
  readonly codebooks?: readonly [Float32Array, Float32Array]
  /** Keys are coded as they were before RoPE, whose angles these are. */
  readonly positions?: Positions
  /** Which heads are turned by a Hadamard matrix before they are coded. */
  readonly rotate: Rotated
}

export interface Rotated {
  readonly keys: boolean
  readonly values: boolean
}

/** Tokens that leave the window together, at least: one at a time would cost a call each. */
const BATCH = 32
/** Tokens of a chunk that there is room for from the start; longer ones make more. */
const CHUNK = 64

/** Tokens by where they are: sinks, then `forgotten` ones, `coded` ones, and those that are left as they are. */
export interface LayerLayout {
  readonly length: number
  readonly coded: number
  readonly forgotten: number
}

type Choices = Pick<LayerOptions, 'keys' | 'values' | 'sinks' | 'window' | 'slide' | 'outliers'>

/** Tokens that are coded together. */
function batchOf({ keys, values }: Pick<Choices, 'keys' | 'values'>): number {
  const block = Math.max(keys.tokens, values.tokens)
  return Math.ceil(BATCH / block) * block
}

/** Tokens in codes at most, where older ones are forgotten. */
const ringOf = (choices: Choices, batch: number): number =>
  Math.max(0, Math.ceil((choices.slide - choices.window) / batch)) * batch

/** How tokens are kept that came one at a time. */
export function usualLayout(choices: Choices, length: number): LayerLayout {
  const batch = batchOf(choices)
  const left = Math.floor((length - choices.sinks - choices.window) / batch) * batch
  const coded = Math.max(0, choices.slide > 0 ? Math.min(left, ringOf(choices, batch)) : left)
  return { length, coded, forgotten: Math.max(0, left - coded) }
}

/** Bytes of one layer's tokens, kept so. */
export function layoutBytes(
  { keys, values, outliers }: Choices,
  { length, coded, forgotten }: LayerLayout,
  width: number,
): number {
  const codes = [keys, values].map(
    (grid, i) =>
      codebookSize(grid, width) * 4 +
      coded * (codeColumns(grid, width) + outliers[i]) * 4 +
      (coded / grid.tokens) * scaleColumns(grid, width) * 2,
  )
  return codes[0] + codes[1] + (length - coded - forgotten) * width * 2 * 4
}

export interface Layer {
  readonly bytes: number
  layout(length: number): LayerLayout
  /** Tokens until `settle` codes some. */
  steady(length: number): number
  append(keys: Tensor, values: Tensor, length: number): void
  attend(
    out: Tensor,
    q: Tensor,
    shape: { heads: number; keyValueHeads: number; headSize: number; scale: number },
    length: number,
  ): void
  /** Codes what has left the window of the newest of `length` tokens. */
  settle(length: number): void
  /** Forgets all past `length`; a block that is cut goes back to numbers, as far as its codes tell them. */
  truncate(length: number): void
  /** The tensors behind a layout. */
  parts(length: number): ReadonlyMap<string, Tensor>
  /** Room for tokens that are kept so; false where none could be. */
  prepare(layout: LayerLayout): boolean
  dispose(): void
}

export function createLayer(
  kernels: Kernels,
  { keyValueHeads, headSize, capacity }: Omit<CacheShape, 'layers'>,
  options: LayerOptions,
): Layer {
  const { keys, values, sinks, window, slide, outliers, codebooks, positions, rotate } = options
  const width = keyValueHeads * headSize
  const block = Math.max(keys.tokens, values.tokens)
  const batch = batchOf(options)
  /**
   * Coded tokens at most. Where older ones are forgotten, new ones take their places, as in a ring: what attends over
   * codes does not ask for their order, since keys have been turned by their positions.
   */
  const most = slide > 0 ? ringOf(options, batch) : Math.ceil(capacity / batch) * batch
  const past = [keys, values].map((grid, i) =>
    codedRows(kernels, grid, width, outliers[i], codebooks?.[i]),
  )
  if (positions) past[0].turn = { rotated: rotate.keys, from: sinks, ...positions }
  let room = 0
  /** Dense tokens: the sinks, then those after the coded ones, from row `first` on. */
  let recent = denseRows(2 * (sinks + Math.min(window, capacity) + batch) + CHUNK)
  let first = 0
  /** A rotation without signs is its own inverse. */
  const turn = (x: Tensor): void => {
    const signs = new Uint8Array(Math.ceil(x.columns / 8))
    kernels.rotate(x, { block: headSize, signs })
  }
  const turned = [rotate.keys && !positions, rotate.values]
  /** Tokens in codes; they stand behind the sinks and those that are forgotten. */
  let coded = 0
  let forgotten = 0

  function denseRows(rows: number): [Tensor, Tensor] {
    return [kernels.tensor(rows, width), kernels.tensor(rows, width)]
  }

  /** Brings `held` dense rows to the front of tensors with room for `needed`. */
  function makeRoom(held: number, needed: number): void {
    const room = recent[0].rows
    if (first + needed <= room) return
    const target =
      held > first || needed > room ? denseRows(Math.max(room, needed + CHUNK)) : recent
    for (const [i, tensor] of recent.entries()) {
      if (held > 0) {
        kernels.copy(kernels.rows(target[i], 0, held), kernels.rows(tensor, first, first + held))
      }
    }
    if (target !== recent) kernels.free(...recent)
    recent = target
    first = 0
  }

  /** Room for so many tokens in codes. */
  function makeCodedRoom(needed: number): void {
    const next = Math.ceil(roomFor(room, needed, most) / batch) * batch
    if (next === room) return
    for (const rows of past) {
      const { tokens } = rows.grid
      rows.codes = resized(kernels, rows.codes, coded, next)
      rows.scales = resized(kernels, rows.scales, coded / tokens, next / tokens)
      if (rows.outliers) rows.outliers = resized(kernels, rows.outliers, coded, next)
    }
    room = next
  }

  /** Codes `count` dense rows from `from` on; what they take the place of is forgotten. */
  function encode(from: number, count: number): void {
    if (coded + count <= most) {
      makeCodedRoom(coded + count)
      write(from, count, coded)
      coded += count
      return
    }
    for (let done = 0; done < count; done += batch) {
      if (most === 0) forgotten += batch
      else if (coded < most) {
        makeCodedRoom(coded + batch)
        write(from + done, batch, coded)
        coded += batch
      } else {
        write(from + done, batch, forgotten % most)
        forgotten += batch
      }
    }
  }

  function write(from: number, count: number, at: number): void {
    for (const [i, tensor] of recent.entries()) {
      const rows = kernels.rows(tensor, from, from + count)
      if (i === 0 && positions) writeBack(rows, at, positions)
      else kernels.encodeRows(past[i], at, rows)
    }
  }

  /** Keys as they were before RoPE; those that are coded stand behind the sinks. */
  function writeBack(keys: Tensor, at: number, { cos, back }: Positions): void {
    const raw = kernels.tensor(keys.rows, width)
    kernels.copy(raw, keys)
    kernels.rope(raw, cos, back, headSize, sinks + at)
    if (rotate.keys) turn(raw)
    kernels.encodeRows(past[0], at, raw)
    kernels.free(raw)
  }

  /** Rows from `at` on as they were when they came, as far as their codes tell. */
  function readBack(out: Tensor, which: number, at: number): void {
    kernels.decodeRows(out, past[which], at)
    if (which > 0 || !positions) return
    if (rotate.keys) turn(out)
    kernels.rope(out, positions.cos, positions.sin, headSize, sinks + at)
  }

  return {
    get bytes() {
      return [...recent, ...past.flatMap(tensorsOf)].reduce(
        (sum, one) => sum + bytesOfTensor(one),
        0,
      )
    },

    layout: (length) => ({ length, coded, forgotten }),

    steady: (length) => forgotten + coded + sinks + window + batch - length,

    append(newKeys, newValues, length) {
      const held = length - forgotten - coded
      makeRoom(held, held + newKeys.rows)
      const at = first + held
      for (const [i, tensor] of [newKeys, newValues].entries()) {
        const rows = kernels.rows(recent[i], at, at + tensor.rows)
        kernels.copy(rows, tensor)
        // Turned keys meet turned queries; turned values are turned back behind the sum.
        if (turned[i]) turn(rows)
      }
    },

    attend(out, q, shape, length) {
      const [k, v] = recent.map((tensor) => kernels.rows(tensor, first, tensor.rows))
      let query = q
      if (turned[0]) {
        query = kernels.tensor(q.rows, q.columns)
        kernels.copy(query, q)
        turn(query)
      }
      const all = { ...shape, start: length - forgotten }
      if (coded === 0) kernels.attention(out, query, k, v, all)
      else kernels.attendCoded(out, query, past[0], past[1], coded, k, v, all)
      if (turned[0]) kernels.free(query)
      if (rotate.values) turn(out)
    },

    settle(length) {
      const left = length - forgotten - coded - sinks - window
      const leaving = Math.floor(left / batch) * batch
      if (leaving <= 0) return
      encode(first + sinks, leaving)
      // The sinks move up to those that stay. Less than a batch of them never meets itself.
      for (const tensor of sinks > 0 ? recent : []) {
        const to = first + leaving
        kernels.copy(
          kernels.rows(tensor, to, to + sinks),
          kernels.rows(tensor, first, first + sinks),
        )
      }
      first += leaving
    },

    truncate(length) {
      if (forgotten > 0) {
        forgotten = 0
        coded = 0
        first = 0
        return
      }
      if (length >= coded + sinks) return
      const kept = Math.max(0, Math.floor((length - sinks) / block) * block)
      const back = Math.max(0, length - sinks - kept)
      const front = Math.min(sinks, length)
      const fresh = denseRows(recent[0].rows)
      for (const [i, tensor] of recent.entries()) {
        if (front > 0) {
          kernels.copy(kernels.rows(fresh[i], 0, front), kernels.rows(tensor, first, first + front))
        }
        if (back > 0) {
          readBack(kernels.rows(fresh[i], sinks, sinks + back), i, kept)
        }
      }
      kernels.free(...recent)
      recent = fresh
      first = 0
      coded = kept
    },

    parts(length) {
      const found = new Map<string, Tensor>()
      const held = length - forgotten - coded
      for (const [i, name] of ['keys', 'values'].entries()) {
        const { codes, scales, grid, outliers } = past[i]
        found.set(name, kernels.rows(recent[i], first, first + held))
        found.set(`${name}.codes`, kernels.rows(codes, 0, coded))
        found.set(`${name}.scales`, kernels.rows(scales, 0, coded / grid.tokens))
        if (outliers) found.set(`${name}.outliers`, kernels.rows(outliers, 0, coded))
      }
      return found
    },

    prepare(layout) {
      const held = layout.length - layout.forgotten - layout.coded
      const possible =
        layout.coded % block === 0 &&
        layout.coded <= most &&
        layout.forgotten % batch === 0 &&
        (layout.forgotten === 0 || (slide > 0 && layout.coded === most)) &&
        held >= (layout.coded + layout.forgotten > 0 ? sinks : 0)
      if (!possible) return false
      coded = 0
      first = 0
      makeCodedRoom(layout.coded)
      makeRoom(0, held)
      coded = layout.coded
      forgotten = layout.forgotten
      return true
    },

    dispose() {
      kernels.free(...recent, ...past.flatMap(tensorsOf))
    },
  }
}

interface GrowingRows extends CodedRows {
  codes: Tensor
  scales: Tensor
  outliers?: Tensor
  turn?: KeyTurn
}

const tensorsOf = ({ codes, scales, codebooks, outliers }: CodedRows): Tensor[] => [
  ...[codes, scales],
  ...(codebooks ? [codebooks] : []),
  ...(outliers ? [outliers] : []),
]

/** No rows yet. */
function codedRows(
  kernels: Kernels,
  grid: CacheGrid,
  width: number,
  outliers: number,
  codebooks: Float32Array | undefined,
): GrowingRows {
  const coupled = grid.coupled ?? 1
  return {
    grid,
    codes: kernels.tensor(0, codeColumns(grid, width), 'u32'),
    scales: kernels.tensor(0, scaleColumns(grid, width), 'u16'),
    ...(codebooks && {
      codebooks: kernels.upload(codebooks, (width / coupled) * ENTRIES, coupled),
    }),
    ...(outliers > 0 && { outliers: kernels.tensor(0, 2 * outliers, 'u16') }),
  }
}
