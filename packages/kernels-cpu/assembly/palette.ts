/** Codes of tables for blocks of a weight: what they mean, and sums over the weights of each code. */

import { take, thread } from './threads'

/** out = rowScale · tables[block][code]; `rowScale` 0: all 1. A task is a row. */
export function decodeCodes(
  out: usize,
  codes: usize,
  rows: i32,
  columns: i32,
  tables: usize,
  entries: i32,
  blockRows: i32,
  blockColumns: i32,
  rowScale: usize,
): void {
  const across = (columns + blockColumns - 1) / blockColumns
  for (let row = take(); row < rows; row = take()) {
    const start = <usize>row * <usize>columns
    const scale: f32 = rowScale ? load<f32>(rowScale + (<usize>row << 2)) : 1
    for (let block = 0; block < across; block++) {
      const number = (row / blockRows) * across + block
      const table = tables + <usize>number * (<usize>entries << 2)
      const end = min((block + 1) * blockColumns, columns)
      for (let column = block * blockColumns; column < end; column++) {
        const at = start + <usize>column
        const value = load<f32>(table + (<usize>load<u8>(codes + at) << 2))
        store<f32>(out + (at << 2), scale * value)
      }
    }
  }
}

/**
 * sums[block][code] = Σ rowScale · x over the block's weights with that code, in f64. A task is a block, so the order
 * of summing is always the same. `scratch`: four sums for each entry, so that equal codes in a row need
 * not wait for each other.
 */
export function sumByCode(
  sums: usize,
  x: usize,
  codes: usize,
  rows: i32,
  columns: i32,
  entries: i32,
  blockRows: i32,
  blockColumns: i32,
  rowScale: usize,
  scratch: usize,
  room: usize,
): void {
  const own = scratch + thread * room
  const across = (columns + blockColumns - 1) / blockColumns
  const tasks = ((rows + blockRows - 1) / blockRows) * across
  for (let task = take(); task < tasks; task = take()) {
    memory.fill(own, 0, <usize>entries << 5)
    const top = (task / across) * blockRows
    const left = (task % across) * blockColumns
    const bottom = min(top + blockRows, rows)
    const right = min(left + blockColumns, columns)
    for (let row = top; row < bottom; row++) {
      const start = <usize>row * <usize>columns
      const scale: f64 = rowScale ? <f64>load<f32>(rowScale + (<usize>row << 2)) : 1
      for (let column = left; column < right; column++) {
        const at = start + <usize>column
        const sum = own + (<usize>load<u8>(codes + at) << 5) + (<usize>(column & 3) << 3)
        store<f64>(sum, load<f64>(sum) + scale * <f64>load<f32>(x + (at << 2)))
      }
    }
    const out = sums + <usize>task * (<usize>entries << 2)
    for (let code = 0; code < entries; code++) {
      const sum = own + (<usize>code << 5)
      const all = load<f64>(sum) + load<f64>(sum, 8) + (load<f64>(sum, 16) + load<f64>(sum, 24))
      store<f32>(out + (<usize>code << 2), <f32>all)
    }
  }
}
