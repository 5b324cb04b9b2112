/**
 * Rounding to a grid of scalars, described in memory by nine fields (the host's
 * src/quantize/grid.ts writes the same):
 *
 *   0 kind   4 lowest f32   8 step f32   12 levels   16 thresholds   20 values   24 codes
 *   28 ranks   32 largest magnitude f32
 *
 * Tables are kept sorted: the rank of v is how many thresholds it exceeds, values[rank] (f32) is
 * its nearest entry and codes[rank] (u8) that entry's code. Ties are settled by where the
 * thresholds are.
 *
 * A grid with a table for each block of the weight is as many descriptors, one after the other,
 * counted row by row of blocks.
 */

const SIZE = 36

/**
 * Codes are nearest(v) − lowest: whole numbers, so that ties go to the even multiple of the scale.
 */
const WHOLE = 0
/** Codes are nearest((v − lowest) / step). */
const STEPPED = 1
const TABLE = 2

// @ts-ignore: decorator
@inline
export function lowestOf(grid: usize): f32 {
  return load<f32>(grid, 4)
}

// @ts-ignore: decorator
@inline
export function stepOf(grid: usize): f32 {
  return load<f32>(grid, 8)
}

// @ts-ignore: decorator
@inline
export function levelsOf(grid: usize): i32 {
  return load<i32>(grid, 12)
}

// @ts-ignore: decorator
@inline
export function largestOf(grid: usize): f32 {
  return load<f32>(grid, 32)
}

// @ts-ignore: decorator
@inline
export function isTable(grid: usize): bool {
  return load<i32>(grid) == TABLE
}

/** How many of the sorted thresholds each lane exceeds. */
function ranks(grid: usize, v: v128): v128 {
  const thresholds = load<usize>(grid, 16)
  const count = load<i32>(grid, 28) - 1
  let rank = i32x4.splat(0)
  if (count <= 16) {
    for (let i = 0; i < count; i++) {
      const over = f32x4.gt(v, v128.load32_splat(thresholds + (<usize>i << 2)))
      rank = i32x4.sub(rank, over)
    }
    return rank
  }
  rank = i32x4.replace_lane(rank, 0, search(thresholds, count, f32x4.extract_lane(v, 0)))
  rank = i32x4.replace_lane(rank, 1, search(thresholds, count, f32x4.extract_lane(v, 1)))
  rank = i32x4.replace_lane(rank, 2, search(thresholds, count, f32x4.extract_lane(v, 2)))
  return i32x4.replace_lane(rank, 3, search(thresholds, count, f32x4.extract_lane(v, 3)))
}

/** Without branches: where a weight falls can't be predicted. */
function search(thresholds: usize, count: i32, v: f32): i32 {
  let low = 0
  while (count > 0) {
    const half = count >> 1
    const over = v > load<f32>(thresholds + (<usize>(low + half) << 2))
    low = select<i32>(low + half + 1, low, over)
    count = select<i32>(count - half - 1, half, over)
  }
  return low
}

/**
 * Where on the grid weights w with scale s and zero z fall: a code (integer grids, as floats in
 * range) or a rank (tables, as integers).
 */
// @ts-ignore: decorator
@inline
export function place(grid: usize, w: v128, s: v128, z: v128): v128 {
  const v = f32x4.div(w, s)
  const kind = load<i32>(grid)
  if (kind == TABLE) return ranks(grid, f32x4.add(v, z))
  const lowest = f32x4.splat(lowestOf(grid))
  const top = f32x4.splat(<f32>(levelsOf(grid) - 1))
  let c: v128
  if (kind == WHOLE) c = f32x4.add(f32x4.nearest(v), f32x4.sub(z, lowest))
  else {
    const t = f32x4.sub(f32x4.add(v, z), lowest)
    c = f32x4.nearest(f32x4.div(t, f32x4.splat(stepOf(grid))))
  }
  return f32x4.min(f32x4.max(c, f32x4.splat(0)), top)
}

/** The weights that stand at `at`: s · (grid value − z). */
// @ts-ignore: decorator
@inline
export function valuesAt(grid: usize, at: v128, s: v128, z: v128): v128 {
  if (isTable(grid)) {
    const values = load<usize>(grid, 20)
    let v = v128.load32_splat(values + (<usize>i32x4.extract_lane(at, 0) << 2))
    v = v128.load32_lane(values + (<usize>i32x4.extract_lane(at, 1) << 2), v, 1)
    v = v128.load32_lane(values + (<usize>i32x4.extract_lane(at, 2) << 2), v, 2)
    v = v128.load32_lane(values + (<usize>i32x4.extract_lane(at, 3) << 2), v, 3)
    return f32x4.mul(s, f32x4.sub(v, z))
  }
  const value = f32x4.add(f32x4.splat(lowestOf(grid)), f32x4.mul(at, f32x4.splat(stepOf(grid))))
  return f32x4.mul(s, f32x4.sub(value, z))
}

/** Their codes as four bytes. */
// @ts-ignore: decorator
@inline
export function codesAt(grid: usize, at: v128): u32 {
  if (isTable(grid)) {
    const codes = load<usize>(grid, 24)
    return (
      <u32>load<u8>(codes + <usize>i32x4.extract_lane(at, 0)) |
      (<u32>load<u8>(codes + <usize>i32x4.extract_lane(at, 1)) << 8) |
      (<u32>load<u8>(codes + <usize>i32x4.extract_lane(at, 2)) << 16) |
      (<u32>load<u8>(codes + <usize>i32x4.extract_lane(at, 3)) << 24)
    )
  }
  const c = i32x4.trunc_sat_f32x4_u(at)
  const narrow = i16x8.narrow_i32x4_u(c, c)
  return <u32>i32x4.extract_lane(i8x16.narrow_i16x8_u(narrow, narrow), 0)
}

/** Whether it is a table of at most 16 values. */
// @ts-ignore: decorator
@inline
export function isSmallTable(grid: usize): bool {
  return isTable(grid) && load<i32>(grid, 28) <= 16
}

/**
 * Codes of 16 weights by a table of at most 16 values, as bytes, each threshold read once for all of them. What they
 * mean goes to `decoded`, if any.
 */
export function roundSixteen(grid: usize, w: usize, s: v128, z: v128, decoded: usize): v128 {
  const v0 = f32x4.add(f32x4.div(v128.load(w), s), z)
  const v1 = f32x4.add(f32x4.div(v128.load(w, 16), s), z)
  const v2 = f32x4.add(f32x4.div(v128.load(w, 32), s), z)
  const v3 = f32x4.add(f32x4.div(v128.load(w, 48), s), z)
  let rank0 = i32x4.splat(0)
  let rank1 = rank0
  let rank2 = rank0
  let rank3 = rank0
  let threshold = load<usize>(grid, 16)
  const end = threshold + (<usize>(load<i32>(grid, 28) - 1) << 2)
  for (; threshold < end; threshold += 4) {
    const t = v128.load32_splat(threshold)
    rank0 = i32x4.sub(rank0, f32x4.gt(v0, t))
    rank1 = i32x4.sub(rank1, f32x4.gt(v1, t))
    rank2 = i32x4.sub(rank2, f32x4.gt(v2, t))
    rank3 = i32x4.sub(rank3, f32x4.gt(v3, t))
  }
  if (decoded) {
    v128.store(decoded, valuesAt(grid, rank0, s, z))
    v128.store(decoded, valuesAt(grid, rank1, s, z), 16)
    v128.store(decoded, valuesAt(grid, rank2, s, z), 32)
    v128.store(decoded, valuesAt(grid, rank3, s, z), 48)
  }
  const low = i16x8.narrow_i32x4_u(rank0, rank1)
  const ranks = i8x16.narrow_i16x8_u(low, i16x8.narrow_i32x4_u(rank2, rank3))
  // Behind fewer than 16 codes stands something else, which no rank asks for.
  return i8x16.swizzle(v128.load(load<usize>(grid, 24)), ranks)
}

/** The descriptor that row `row` and block of columns `block` have of a grid with several tables. */
// @ts-ignore: decorator
@inline
export function tableAt(grid: usize, tableRows: i32, across: i32, row: i32, block: i32): usize {
  return grid + <usize>((row / tableRows) * across + block) * SIZE
}

/** `place` for four rows of one column that lie in different tables. */
export function placeRows(
  a: usize,
  b: usize,
  c: usize,
  d: usize,
  w: v128,
  s: v128,
  z: v128,
): v128 {
  const low = v128.shuffle<i32>(place(a, w, s, z), place(b, w, s, z), 0, 5, 2, 7)
  const high = v128.shuffle<i32>(place(c, w, s, z), place(d, w, s, z), 0, 5, 2, 7)
  return v128.shuffle<i32>(low, high, 0, 1, 6, 7)
}

export function valuesAtRows(
  a: usize,
  b: usize,
  c: usize,
  d: usize,
  at: v128,
  s: v128,
  z: v128,
): v128 {
  // Each table is asked for its own lane alone: another's rank may lie past its end.
  let v = f32x4.splat(f32x4.extract_lane(valuesAt(a, v128.shuffle<i32>(at, at, 0, 0, 0, 0), s, z), 0))
  v = f32x4.replace_lane(v, 1, f32x4.extract_lane(valuesAt(b, v128.shuffle<i32>(at, at, 1, 1, 1, 1), s, z), 1))
  v = f32x4.replace_lane(v, 2, f32x4.extract_lane(valuesAt(c, v128.shuffle<i32>(at, at, 2, 2, 2, 2), s, z), 2))
  return f32x4.replace_lane(v, 3, f32x4.extract_lane(valuesAt(d, v128.shuffle<i32>(at, at, 3, 3, 3, 3), s, z), 3))
}

export function codesAtRows(a: usize, b: usize, c: usize, d: usize, at: v128): u32 {
  return (
    (codesAt(a, v128.shuffle<i32>(at, at, 0, 0, 0, 0)) & 0xff) |
    (codesAt(b, v128.shuffle<i32>(at, at, 1, 1, 1, 1)) & 0xff00) |
    (codesAt(c, v128.shuffle<i32>(at, at, 2, 2, 2, 2)) & 0xff0000) |
    (codesAt(d, v128.shuffle<i32>(at, at, 3, 3, 3, 3)) & 0xff000000)
  )
}
