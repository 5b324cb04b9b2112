/** Keys and values in few bits, as their definition says. */

import {
  type CacheGrid,
  type CacheKernels,
  type CodedRows,
  checkCodebooks,
  checkCodedAttention,
  checkGrid,
  codeColumns,
  ENTRIES,
  fromFloat32,
  type Kernels,
  LowbitError,
  outliersOf,
  scaleColumns,
  toFloat32,
} from '@lowbit/core'
import type { Memory } from './memory.ts'

/** A number as f16 has it; too large ones are the largest. */
function half(x: number): number {
  const kept = Math.max(-65504, Math.min(65504, x))
  return toFloat32('f16', fromFloat32('f16', Float32Array.of(kept)) as Uint16Array)[0]
}

const halfBits = (x: number): number => fromFloat32('f16', Float32Array.of(half(x)))[0]

/** The places of each row's `count` numbers that are farthest from the mean of their block; of two as far the first. */
function farthest(
  values: ArrayLike<number>,
  rows: number,
  width: number,
  { tokens, channels }: CacheGrid,
  count: number,
): ReadonlySet<number> {
  const found = new Set<number>()
  const blockOf = (row: number, column: number): number =>
    Math.floor(row / tokens) * (width / channels) + Math.floor(column / channels)
  const sums = new Float64Array((rows / tokens) * (width / channels))
  for (let i = 0; i < rows * width; i++)
    sums[blockOf(Math.floor(i / width), i % width)] += values[i]
  for (let row = 0; row < rows; row++) {
    const far = Array.from({ length: width }, (_, column) => ({
      column,
      by: Math.abs(values[row * width + column] - sums[blockOf(row, column)] / (tokens * channels)),
    }))
    far.sort((a, b) => b.by - a.by || a.column - b.column)
    for (const { column } of far.slice(0, count)) found.add(row * width + column)
  }
  return found
}

export function codedOperations(
  { floats, codes: codesOf, operations }: Memory,
  { attention, rope, rotate }: Pick<Kernels, 'attention' | 'rope' | 'rotate'>,
): CacheKernels {
  /** The number that a code of a block stands for. */
  function numberOf(
    { bits, symmetric, table }: CacheGrid,
    code: number,
    scale: number,
    bias: number,
  ) {
    if (table) return Math.fround(scale * table[code] + bias)
    return symmetric ? scale * (code - (2 ** bits - 1) / 2) : scale * code + bias
  }

  type Words = ReturnType<Memory['codes']>

  /** The word and the place in it of code `column` of the row whose words begin at `line`. */
  const placeOf = (line: number, column: number, bits: number) => {
    const bit = column * bits
    return { at: line + (bit >> 5), place: BigInt(bit & 31) }
  }

  /** A code may reach into the next word. */
  const pairAt = (words: Words, at: number): bigint =>
    BigInt(words[at]) | (BigInt(words[at + 1] ?? 0) << 32n)

  function codeAt(words: Words, line: number, column: number, bits: number): number {
    const { at, place } = placeOf(line, column, bits)
    return Number((pairAt(words, at) >> place) & BigInt(2 ** bits - 1))
  }

  function putCode(words: Words, line: number, column: number, bits: number, code: number): void {
    const { at, place } = placeOf(line, column, bits)
    const kept = pairAt(words, at) & ~(BigInt(2 ** bits - 1) << place)
    const pair = kept | (BigInt(code) << place)
    words[at] = Number(pair & 0xffffffffn)
    if (at + 1 < words.length) words[at + 1] = Number(pair >> 32n)
  }

  /** An entry of the codebook of vector `place` of a row. */
  function entryOf({ codebooks, grid }: CodedRows, place: number, code: number) {
    const coupled = grid.coupled ?? 1
    const at = (place * ENTRIES + code) * coupled
    return floats(codebooks!).subarray(at, at + coupled)
  }

  function nearestEntry(into: CodedRows, place: number, vector: Float32Array): number {
    let [best, least] = [0, Number.POSITIVE_INFINITY]
    for (let code = 0; code < ENTRIES; code++) {
      const distance = entryOf(into, place, code).reduce(
        (sum, x, i) => sum + (x - vector[i]) ** 2,
        0,
      )
      if (distance < least) [best, least] = [code, distance]
    }
    return best
  }

  const self: CacheKernels = {
    encodeRows(into, at, x) {
      const { codes, scales, grid, outliers } = into
      const { rows, columns: width } = x
      checkGrid(grid, width)
      checkCodebooks(into, width)
      const count = outliersOf(into, width)
      const { bits, tokens, channels, symmetric, table, coupled } = grid
      const blocks = width / channels
      const fits =
        codes.type === 'u32' &&
        codes.columns === codeColumns(grid, width) &&
        scales.columns === scaleColumns(grid, width)
      if (!fits)
        throw new LowbitError('bad-shape', `codes or scales are not those of rows of ${width}`)
      if (at % tokens !== 0 || rows % tokens !== 0 || at < 0 || at + rows > codes.rows) {
        throw new LowbitError('bad-shape', `rows ${at} to ${at + rows} are no blocks of ${tokens}`)
      }
      const [words, numbers, values] = [codesOf(codes), codesOf(scales), floats(x)]
      if (bits === 16) {
        values.forEach((value, i) => {
          const line = (at + Math.floor(i / width)) * codes.columns
          putCode(words, line, i % width, bits, halfBits(value))
        })
        return
      }
      if (coupled) {
        for (let i = 0; i < values.length; i += coupled) {
          const vector = values.subarray(i, i + coupled)
          const place = (i % width) / coupled
          const line = (at + Math.floor(i / width)) * codes.columns
          putCode(words, line, place, bits, nearestEntry(into, place, vector))
        }
        return
      }
      const apart = farthest(values, rows, width, grid, count)
      const levels = 2 ** bits - 1
      for (let t = 0; t < rows; t += tokens) {
        for (let block = 0; block < blocks; block++) {
          const cells = Array.from({ length: tokens * channels }, (_, i) => ({
            row: t + Math.floor(i / channels),
            column: block * channels + (i % channels),
          }))
          const found = cells.map(({ row, column }) => values[row * width + column])
          const others = found.filter((_, i) => !apart.has(cells[i].row * width + cells[i].column))
          const ends = others.length > 0 ? [Math.min(...others), Math.max(...others)] : [0, 0]
          const cut = ((1 - (grid.range ?? 1)) / 2) * (ends[1] - ends[0])
          const [least, most] = [ends[0] + cut, ends[1] - cut]
          const reach = table ? Math.max(-table[0], table[levels]) : levels / 2
          const span = symmetric
            ? Math.fround(Math.max(-least, most) / reach)
            : Math.fround((most - least) / (table ? 1 : levels))
          const line = ((at + t) / tokens) * scales.columns
          numbers[line + block] = halfBits(span)
          const scale = half(span)
          const bias = symmetric ? 0 : half(least)
          const meanings = Array.from({ length: levels + 1 }, (_, code) =>
            numberOf(grid, code, scale, bias),
          )
          if (!symmetric) numbers[line + blocks + block] = halfBits(least)
          cells.forEach(({ row, column }, i) => {
            let best = 0
            let distance = Number.POSITIVE_INFINITY
            for (let code = 0; scale > 0 && code <= levels; code++) {
              const away = Math.abs(Math.min(most, Math.max(least, found[i])) - meanings[code])
              if (away < distance) [best, distance] = [code, away]
            }
            putCode(words, (at + row) * codes.columns, column, bits, best)
          })
        }
      }
      if (!outliers) return
      const coded = operations.tensor(rows, width)
      self.decodeRows(coded, { codes, scales, grid }, at)
      const lists = codesOf(outliers)
      const decoded = floats(coded)
      const places = [...apart].sort((a, b) => a - b)
      places.forEach((place, i) => {
        const line = (at + Math.floor(i / count)) * outliers.columns + (i % count)
        lists[line] = place % width
        lists[line + count] = halfBits(values[place] - decoded[place])
      })
      operations.free(coded)
    },

    decodeRows(out, from, at) {
      const { codes, scales, grid, outliers } = from
      const { rows, columns: width } = out
      checkGrid(grid, width)
      checkCodebooks(from, width)
      const count = outliersOf(from, width)
      const { bits, tokens, channels, symmetric, coupled = 1 } = grid
      if (at < 0 || at + rows > codes.rows) {
        throw new LowbitError('bad-shape', `there are ${codes.rows} rows, not ${at + rows}`)
      }
      const [words, numbers, values] = [codesOf(codes), codesOf(scales), floats(out)]
      const blocks = width / channels
      for (let row = 0; row < rows; row++) {
        const line = Math.floor((at + row) / tokens) * scales.columns
        for (let column = 0; column < width; column++) {
          const block = Math.floor(column / channels)
          const [scale, bias] = [line + block, line + blocks + block].map(
            (i) => toFloat32('f16', Uint16Array.of(numbers[i] ?? 0))[0],
          )
          const place = Math.floor(column / coupled)
          const code = codeAt(words, (at + row) * codes.columns, place, bits)
          if (coupled > 1) {
            values[row * width + column] = entryOf(from, place, code)[column % coupled]
            continue
          }
          if (bits === 16) {
            values[row * width + column] = toFloat32('f16', Uint16Array.of(code))[0]
            continue
          }
          values[row * width + column] = numberOf(grid, code, scale, symmetric ? 0 : bias)
        }
        for (let i = 0; outliers && i < count; i++) {
          const lists = codesOf(outliers)
          const entry = (at + row) * outliers.columns + i
          const lacks = toFloat32('f16', Uint16Array.of(lists[entry + count]))[0]
          values[row * width + lists[entry]] += lacks
        }
      }
    },

    attendCoded(out, q, keys, values, coded, k, v, shape) {
      const width = shape.keyValueHeads * shape.headSize
      const fresh = checkCodedAttention(q, keys, values, coded, k, v, shape)
      const dense = [
        [keys, k],
        [values, v],
      ].map(([past, now]) => {
        const all = operations.tensor(coded + fresh, width)
        if (coded > 0) {
          const { turn } = past as CodedRows
          const rows = operations.rows(all, 0, coded)
          self.decodeRows(rows, past as CodedRows, 0)
          const signs = new Uint8Array(Math.ceil(width / 8))
          if (turn?.rotated) rotate(rows, { block: shape.headSize, signs })
          if (turn) rope(rows, turn.cos, turn.sin, shape.headSize, turn.from)
        }
        const tensor = now as typeof k
        operations.copy(
          operations.rows(all, coded, coded + fresh),
          operations.rows(tensor, 0, fresh),
        )
        return all
      })
      attention(out, q, dense[0], dense[1], shape)
      operations.free(...dense)
    },
  }
  return self
}
