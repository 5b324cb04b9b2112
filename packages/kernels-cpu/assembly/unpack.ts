/**
 * Streams of codes of 1–16 bits (core's bits/stream.ts) into the layouts of codes.ts and codebook.ts. A
 * task is a strip of 8 rows or a vector of rows; highest[task] is the largest code seen, so that the host
 * can refuse those that mean nothing.
 */

import { take } from './threads'

// @ts-ignore: decorator
@inline
function read(stream: usize, bits: i32, index: u64): u32 {
  const bit = index * <u64>bits
  const word = load<u32>(stream + <usize>(bit >> 3))
  return (word >> <u32>(bit & 7)) & ((1 << bits) - 1)
}

/**
 * Scalars: columns [first, first + columns) of [rows][wide] codes into containers, in groups of `group`
 * padded to `padded` with code 0.
 */
export function unpackScalars(
  out: usize,
  stride: usize,
  stream: usize,
  bits: i32,
  rows: i32,
  wide: i32,
  first: i32,
  columns: i32,
  container: i32,
  group: i32,
  padded: i32,
  highest: usize,
): void {
  const strips = (rows + 7) >> 3
  for (let strip = take(); strip < strips; strip = take()) {
    const to = out + <usize>strip * stride
    memory.fill(to, 0, stride)
    let most: u32 = 0
    const last = min(rows, (strip + 1) << 3)
    for (let row = strip << 3; row < last; row++) {
      const half = (row >> 2) & 1
      const lane = (row & 3) << 2
      let index = <u64>row * <u64>wide + <u64>first
      for (let from = 0, k0 = 0; from < columns; from += group, k0 += padded) {
        const count = min(group, columns - from)
        for (let k = k0; k < k0 + count; k++, index++) {
          const code = read(stream, bits, index)
          most = max(most, code)
          const byte = lane + (k & 3)
          if (container == 8) {
            store<u8>(to + <usize>(((k >> 2) << 5) + (half << 4) + byte), <u8>code)
            continue
          }
          const four = container == 4
          const at = to + <usize>(((four ? k >> 2 : k >> 3) << 4) + byte)
          const shift = four ? half << 2 : (k & 4) + (half << 1)
          store<u8>(at, load<u8>(at) | <u8>(code << shift))
        }
      }
    }
    store<u32>(highest + (<usize>strip << 2), most)
  }
}

/** Vectors of rows: columns [first, first + columns) of [vectors][wide] codes, groups padded as above. */
export function unpackOut(
  out: usize,
  stride: usize,
  stream: usize,
  bits: i32,
  vectors: i32,
  wide: i32,
  first: i32,
  columns: i32,
  size: i32,
  group: i32,
  padded: i32,
  highest: usize,
): void {
  for (let vector = take(); vector < vectors; vector = take()) {
    const to = out + <usize>vector * stride
    memory.fill(to, 0, stride)
    let most: u32 = 0
    let index = <u64>vector * <u64>wide + <u64>first
    for (let from = 0, k0 = 0; from < columns; from += group, k0 += padded) {
      const count = min(group, columns - from)
      for (let k = k0; k < k0 + count; k++, index++) {
        const code = read(stream, bits, index)
        most = max(most, code)
        if (size == 1) store<u8>(to + <usize>k, <u8>code)
        else store<u16>(to + (<usize>k << 1), <u16>code)
      }
    }
    store<u32>(highest + (<usize>vector << 2), most)
  }
}

/**
 * Vectors of columns: [first, first + vectors) of [rows][wide] codes as [strip][vector][8]. Scalars are
 * vectors of one, with groups of them padded.
 */
export function unpackIn(
  out: usize,
  stride: usize,
  stream: usize,
  bits: i32,
  rows: i32,
  wide: i32,
  first: i32,
  vectors: i32,
  size: i32,
  group: i32,
  padded: i32,
  highest: usize,
): void {
  const strips = (rows + 7) >> 3
  for (let strip = take(); strip < strips; strip = take()) {
    const to = out + <usize>strip * stride
    memory.fill(to, 0, stride)
    let most: u32 = 0
    for (let r = 0; r < 8; r++) {
      const row = (strip << 3) + r
      if (row >= rows) break
      let index = <u64>row * <u64>wide + <u64>first
      for (let from = 0, v0 = 0; from < vectors; from += group, v0 += padded) {
        const count = min(group, vectors - from)
        for (let v = v0; v < v0 + count; v++, index++) {
          const code = read(stream, bits, index)
          most = max(most, code)
          const at = <usize>((v << 3) + r)
          if (size == 1) store<u8>(to + at, <u8>code)
          else store<u16>(to + (at << 1), <u16>code)
        }
      }
    }
    store<u32>(highest + (<usize>strip << 2), most)
  }
}

/** Entries [tables · entries][length] as [pitch], zeros past the end; `factors`: one for each table, or 0. */
export function padEntries(
  out: usize,
  values: usize,
  factors: usize,
  tables: i32,
  entries: i32,
  length: i32,
  pitch: usize,
): void {
  for (let table = take(); table < tables; table = take()) {
    const factor: f32 = factors ? load<f32>(factors + (<usize>table << 2)) : 1
    for (let i = table * entries; i < (table + 1) * entries; i++) {
      const from = values + <usize>i * (<usize>length << 2)
      const to = out + <usize>i * pitch
      memory.fill(to, 0, pitch)
      for (let e: usize = 0; e < <usize>length << 2; e += 4) {
        store<f32>(to + e, load<f32>(from + e) * factor)
      }
    }
  }
}
