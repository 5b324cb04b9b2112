/**
 * The right-hand side of a multiplication, described in memory by eighteen 32-bit fields (the host's
 * src/weights/source.ts writes the same). Weights are kept in strips: 8 rows (outputs) side by side
 * for all k, so that rows are vector lanes and x is what gets splatted.
 *
 *   f32, f16, bf16  [strip][k][8]
 *   codes           [strip][k / 4][…16 bytes…], see codes.ts
 *   ROWS            a plain tensor b[n][k]
 *   COLUMNS         a plain tensor b[k][n]
 *   OUT, IN         codes of vectors, see codebook.ts
 *   SUM             `groups` pairs [source, first k]: parts, each over some of the columns
 *
 * Codes have blocks of `group` columns; a weight is scale · (value + center) + offset, with 8
 * scales and, if any, offsets for each strip and group: [strip][group][8]. Where there are offsets
 * the center, one number for the whole matrix, is 0. Tables belong to blocks of `tableRows` rows ×
 * `tableGroups` groups, `tablesAcross` in a row of blocks.
 */

export const F32 = 0
export const F16 = 1
export const BF16 = 2
export const ROWS = 3
export const COLUMNS = 4
export const INTEGER2 = 5
export const INTEGER4 = 6
export const INTEGER8 = 7
export const TABLE2 = 8
export const TABLE4 = 9
export const TABLE8 = 10
/** Vectors of `length` rows of one column. */
export const OUT = 11
/** Vectors of `length` columns of one row. */
export const IN = 12
export const SUM = 13

// @ts-ignore: decorator
@inline
export function kindOf(source: usize): i32 {
  return load<i32>(source)
}

// @ts-ignore: decorator
@inline
export function dataOf(source: usize): usize {
  return load<usize>(source, 4)
}

/** Bytes from strip to strip, or from row to row of a plain tensor. */
// @ts-ignore: decorator
@inline
export function strideOf(source: usize): usize {
  return load<usize>(source, 8)
}

/** Outputs. */
// @ts-ignore: decorator
@inline
export function rowsOf(source: usize): i32 {
  return load<i32>(source, 12)
}

/** Inputs, with each group padded to whole steps. */
// @ts-ignore: decorator
@inline
export function depthOf(source: usize): i32 {
  return load<i32>(source, 16)
}

// @ts-ignore: decorator
@inline
export function groupOf(source: usize): i32 {
  return load<i32>(source, 20)
}

// @ts-ignore: decorator
@inline
export function groupsOf(source: usize): i32 {
  return load<i32>(source, 24)
}

// @ts-ignore: decorator
@inline
export function scalesOf(source: usize): usize {
  return load<usize>(source, 28)
}

/** 0 where there are none. */
// @ts-ignore: decorator
@inline
export function offsetsOf(source: usize): usize {
  return load<usize>(source, 32)
}

/** The table of a row (of whole strips, or of vectors) in group g. */
// @ts-ignore: decorator
@inline
export function tableAt(source: usize, row: i32, g: i32): usize {
  const block = (row / load<i32>(source, 44)) * load<i32>(source, 48) + g / load<i32>(source, 52)
  return load<usize>(source, 36) + <usize>block * load<usize>(source, 56)
}

/** Weights of a vector. */
// @ts-ignore: decorator
@inline
export function lengthOf(source: usize): i32 {
  return load<i32>(source, 60)
}

/** Bytes of a vector's code: 1 or 2. */
// @ts-ignore: decorator
@inline
export function wideOf(source: usize): i32 {
  return load<i32>(source, 64)
}

/** Bytes of a table's entry. */
// @ts-ignore: decorator
@inline
export function pitchOf(source: usize): usize {
  return load<usize>(source, 68)
}

// @ts-ignore: decorator
@inline
export function centerOf(source: usize): f32 {
  return load<f32>(source, 40)
}
