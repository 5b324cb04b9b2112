/** Grids as assembly/grid.ts reads them. */

import { gridValues, LowbitError, type ScalarGrid } from '@lowbit/core'
import type { Device } from '../device.ts'

const WHOLE = 0
const STEPPED = 1
const TABLE = 2

/** A table sorted for searching: the nearest entry's rank is the number of thresholds below. */
export interface SortedTable {
  readonly values: Float32Array
  readonly codes: Uint8Array
  readonly thresholds: Float32Array
}

export function sortTable(table: Float32Array): SortedTable {
  const codes: number[] = []
  const seen = new Set<number>()
  for (let code = 0; code < table.length; code++) {
    // −0 and repeated entries: the first code stands for all.
    const value = table[code] + 0
    if (!Number.isFinite(value) || seen.has(value)) continue
    seen.add(value)
    codes.push(code)
  }
  codes.sort((a, b) => table[a] - table[b])
  const values = Float32Array.from(codes, (code) => table[code] + 0)
  const thresholds = Float32Array.from({ length: codes.length - 1 }, (_, i) => {
    // Exact in f64. The rank counts thresholds that v exceeds, so a tie goes down; where the upper
    // code is the even one the threshold moves below the middle.
    const middle = (values[i] + values[i + 1]) / 2
    const near = Math.fround(middle)
    if (near !== middle) return near < middle ? near : before(near)
    return codes[i + 1] % 2 === 0 && codes[i] % 2 !== 0 ? before(near) : near
  })
  return { values, codes: Uint8Array.from(codes), thresholds }
}

/** The next smaller f32. */
function before(x: number): number {
  const view = new DataView(new ArrayBuffer(4))
  if (x === 0) return -(2 ** -149)
  view.setFloat32(0, x)
  view.setInt32(0, view.getInt32(0) + (x > 0 ? -1 : 1))
  return view.getFloat32(0)
}

/** Addresses of grid descriptors, made once for each grid. */
export function gridMemory({ memory, room }: Device): (grid: ScalarGrid) => number {
  const known = new Map<ScalarGrid, number>()
  const named = new Map<string, number>()
  let parts = 0
  const allocate = (bytes: number): number => room(`grid ${parts++}`, bytes)

  function write(grid: ScalarGrid): number {
    const at = allocate(36)
    const floats = (values: Float32Array): number => {
      const to = allocate(values.byteLength)
      memory.f32.set(values, to / 4)
      return to
    }
    if (grid.kind === 'integer') {
      const { lowest, step, levels } = grid
      const whole = step === 1 && Number.isInteger(lowest)
      const largest = Math.max(Math.abs(lowest), Math.abs(lowest + step * (levels - 1)))
      memory.i32.set([whole ? WHOLE : STEPPED, 0, 0, levels, 0, 0, 0, 0], at / 4)
      memory.f32.set([lowest, step], at / 4 + 1)
      memory.f32[at / 4 + 8] = largest
      return at
    }
    if (grid.kind === 'lookup' && grid.tables.values.length !== grid.entries) {
      throw new LowbitError('bad-grid', 'rounding to several tables is not supported')
    }
    const { values, codes, thresholds } = sortTable(gridValues(grid))
    if (values.length === 0 || values.length > 256) {
      throw new LowbitError('bad-grid', `a table of ${values.length} entries cannot be rounded to`)
    }
    const codesAt = allocate(codes.length)
    memory.u8.set(codes, codesAt)
    const [tableAt, thresholdsAt] = [floats(values), floats(thresholds)]
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    memory.u32.set(
      [TABLE, 0, 0, values.length, thresholdsAt, tableAt, codesAt, values.length],
      at / 4,
    )
    memory.f32[at / 4 + 8] = largest
    return at
  }

  return (grid) => {
    let at = known.get(grid)
    if (at !== undefined) return at
    // Recipes make the same grid again and again.
    const name =
      grid.kind === 'lookup' ? `lookup ${grid.tables.values.join()}` : JSON.stringify(grid)
    at = named.get(name) ?? write(grid)
    named.set(name, at)
    if (known.size > 1000) known.clear()
    known.set(grid, at)
    return at
  }
}
