/** What one layer keeps: the oldest tokens in codes, the first few and the newest as they are. */

import {
  type CacheGrid,
  type CacheShape,
  type CodedRows,
  codeColumns,
  type Kernels,
  scaleColumns,
  type Tensor,
} from '@lowbit/core'

export interface LayerOptions {
  readonly keys: CacheGrid
  readonly values: CacheGrid
  /** The first tokens of a text, which all later ones look at, stay as they are. */
  readonly sinks: number
  /** The newest tokens that stay as they are, at least. */
  readonly window: number
  readonly rotate: boolean
}

/** Tokens that leave the window together, at least: one at a time would cost a call each. */
const BATCH = 32
/** Tokens of a chunk that there is room for from the start; longer ones make more. */
const CHUNK = 64

export interface Layer {
  readonly bytes: number
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
  dispose(): void
}

export function createLayer(
  kernels: Kernels,
  { keyValueHeads, headSize, capacity }: Omit<CacheShape, 'layers'>,
  { keys, values, sinks, window, rotate }: LayerOptions,
): Layer {
  const width = keyValueHeads * headSize
  const block = Math.max(keys.tokens, values.tokens)
  const batch = Math.ceil(BATCH / block) * block
  const past = [keys, values].map((grid) => codedRows(kernels, grid, capacity, width))
  /** Dense tokens: the sinks, then those after the coded ones, from row `first` on. */
  let recent = denseRows(2 * (sinks + window + batch) + CHUNK)
  let first = 0
  /** A rotation without signs is its own inverse. */
  const turn = (x: Tensor): void => {
    const signs = new Uint8Array(Math.ceil(x.columns / 8))
    if (rotate) kernels.rotate(x, { block: headSize, signs })
  }
  /** Tokens in codes; they stand behind the sinks. */
  let coded = 0

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

  return {
    get bytes() {
      const codes = past.reduce((sum, one) => sum + bytesOf(one.codes) + bytesOf(one.scales), 0)
      return codes + bytesOf(recent[0]) + bytesOf(recent[1])
    },

    append(newKeys, newValues, length) {
      const held = length - coded
      makeRoom(held, held + newKeys.rows)
      const at = first + held
      for (const [i, tensor] of [newKeys, newValues].entries()) {
        const rows = kernels.rows(recent[i], at, at + tensor.rows)
        kernels.copy(rows, tensor)
        // Turned keys meet turned queries; turned values are turned back behind the sum.
        turn(rows)
      }
    },

    attend(out, q, shape, length) {
      const [k, v] = recent.map((tensor) => kernels.rows(tensor, first, tensor.rows))
      let query = q
      if (rotate) {
        query = kernels.tensor(q.rows, q.columns)
        kernels.copy(query, q)
        turn(query)
      }
      if (coded === 0) kernels.attention(out, query, k, v, { ...shape, start: length })
      else {
        const all = { ...shape, start: length }
        kernels.attendCoded(out, query, past[0], past[1], coded, k, v, all)
      }
      if (!rotate) return
      kernels.free(query)
      turn(out)
    },

    settle(length) {
      const left = length - coded - sinks - window
      const leaving = Math.floor(left / batch) * batch
      if (leaving <= 0) return
      const from = first + sinks
      for (const [i, tensor] of recent.entries()) {
        kernels.encodeRows(past[i], coded, kernels.rows(tensor, from, from + leaving))
        // The sinks move up to those that stay. Less than a batch of them never meets itself.
        if (sinks > 0) {
          const to = first + leaving
          kernels.copy(
            kernels.rows(tensor, to, to + sinks),
            kernels.rows(tensor, first, first + sinks),
          )
        }
      }
      coded += leaving
      first += leaving
    },

    truncate(length) {
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
          kernels.decodeRows(kernels.rows(fresh[i], sinks, sinks + back), past[i], kept)
        }
      }
      kernels.free(...recent)
      recent = fresh
      first = 0
      coded = kept
    },

    dispose() {
      kernels.free(...recent, ...past.flatMap(({ codes, scales }) => [codes, scales]))
    },
  }
}

function codedRows(kernels: Kernels, grid: CacheGrid, capacity: number, width: number): CodedRows {
  const { tokens } = grid
  const rows = Math.ceil(capacity / tokens) * tokens
  return {
    grid,
    codes: kernels.tensor(rows, codeColumns(grid, width), 'u32'),
    scales: kernels.tensor(rows / tokens, scaleColumns(grid, width), 'u16'),
  }
}

const SIZES = { f32: 4, u32: 4, u16: 2, u8: 1 } as const

const bytesOf = ({ rows, columns, type }: Tensor): number => rows * columns * SIZES[type]
