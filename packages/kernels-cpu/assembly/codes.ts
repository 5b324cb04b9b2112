/**
 * How codes lie in a strip of 8 rows, and how they become floats. A quarter is 16 bytes: 4 rows × 4
 * consecutive k, byte 4·row + k. Containers of
 *
 *   8 bits: two quarters for each 4 k: rows 0–3, rows 4–7
 *   4 bits: one vector for each 4 k: low nibbles rows 0–3, high nibbles rows 4–7
 *   2 bits: one vector for each 8 k: bits 0–1 rows 0–3, 2–3 rows 4–7 of the first 4 k, then the
 * rest
 *
 * The same bytes feed the int8 dot products, which sum 4 neighbouring k into a row's 32-bit lane.
 */

/** The quarter of rows 4·half … 4·half + 3 at k (a multiple of 4) of the strip at p. */
// @ts-ignore: decorator
@inline
export function quarter(bits: i32, p: usize, k: i32, half: i32): v128 {
  if (bits == 8) return v128.load(p + <usize>((k << 3) + (half << 4)))
  if (bits == 4) {
    const v = v128.load(p + <usize>(k << 2))
    return v128.and(half ? i16x8.shr_u(v, 4) : v, i8x16.splat(15))
  }
  const v = v128.load(p + <usize>((k >> 3) << 4))
  return v128.and(i16x8.shr_u(v, (k & 4) + (half << 1)), i8x16.splat(3))
}

/** Column j (0–3) of a quarter as four floats, a row in each lane. */
// @ts-ignore: decorator
@inline
export function integers(v: v128, j: i32): v128 {
  if (j == 0) return f32x4.convert_i32x4_s(v128.and(v, i32x4.splat(255)))
  if (j == 3) return f32x4.convert_i32x4_s(i32x4.shr_u(v, 24))
  return f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(v, j << 3), i32x4.splat(255)))
}

/**
 * The same through a table of 16 floats, stored as four planes of 16 bytes (byte i of every entry):
 * one swizzle for each plane, then bytes are woven into floats.
 */
// @ts-ignore: decorator
@inline
export function entries16(v: v128, j: i32, t0: v128, t1: v128, t2: v128, t3: v128): v128 {
  // Columns of the quarter become rows: bytes 0–3 are k 0, 4–7 are k 1 …
  const t = i8x16.shuffle(v, v, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
  const b0 = i8x16.swizzle(t0, t)
  const b1 = i8x16.swizzle(t1, t)
  const b2 = i8x16.swizzle(t2, t)
  const b3 = i8x16.swizzle(t3, t)
  if (j < 2) {
    const low = i8x16.shuffle(b0, b1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
    const high = i8x16.shuffle(b2, b3, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
    return j == 0
      ? v128.shuffle<i16>(low, high, 0, 8, 1, 9, 2, 10, 3, 11)
      : v128.shuffle<i16>(low, high, 4, 12, 5, 13, 6, 14, 7, 15)
  }
  const low = i8x16.shuffle(b0, b1, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
  const high = i8x16.shuffle(b2, b3, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
  return j == 2
    ? v128.shuffle<i16>(low, high, 0, 8, 1, 9, 2, 10, 3, 11)
    : v128.shuffle<i16>(low, high, 4, 12, 5, 13, 6, 14, 7, 15)
}

/** The same through a table of 256 floats at `table`. `p` is the quarter's address: 8 bits only. */
// @ts-ignore: decorator
@inline
export function entries256(p: usize, j: i32, table: usize): v128 {
  let v = v128.load32_splat(table + (<usize>load<u8>(p + j) << 2))
  v = v128.load32_lane(table + (<usize>load<u8>(p + j + 4) << 2), v, 1)
  v = v128.load32_lane(table + (<usize>load<u8>(p + j + 8) << 2), v, 2)
  return v128.load32_lane(table + (<usize>load<u8>(p + j + 12) << 2), v, 3)
}
