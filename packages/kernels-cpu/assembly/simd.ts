/** The few vector steps that differ between the strict and the relaxed build, and small helpers. */

/** a·b + c. Two roundings in the strict build; in the relaxed build one where the CPU has FMA. */
// @ts-ignore: decorator
@inline
export function fma(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c)
  return f32x4.add(f32x4.mul(a, b), c)
}

/** c − a·b. */
// @ts-ignore: decorator
@inline
export function fnma(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_nmadd(a, b, c)
  return f32x4.sub(c, f32x4.mul(a, b))
}

/** (l0 + l2) + (l1 + l3), always in this order. */
// @ts-ignore: decorator
@inline
export function sum(v: v128): f32 {
  const pair = f32x4.add(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1))
  return f32x4.extract_lane(pair, 0) + f32x4.extract_lane(pair, 1)
}

// @ts-ignore: decorator
@inline
export function largest(v: v128): f32 {
  const pair = f32x4.max(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1))
  return max(f32x4.extract_lane(pair, 0), f32x4.extract_lane(pair, 1))
}

/** Four numbers, of which the first `count` are at `p`; the others are zero. */
// @ts-ignore: decorator
@inline
export function loadSome(p: usize, count: i32): v128 {
  if (count >= 4) return v128.load(p)
  let v = f32x4.splat(0)
  if (count > 0) v = v128.load32_lane(p, v, 0, 0)
  if (count > 1) v = v128.load32_lane(p, v, 1, 4)
  if (count > 2) v = v128.load32_lane(p, v, 2, 8)
  return v
}

// @ts-ignore: decorator
@inline
export function storeSome(p: usize, v: v128, count: i32): void {
  if (count >= 4) {
    v128.store(p, v)
    return
  }
  if (count > 0) v128.store32_lane(p, v, 0, 0)
  if (count > 1) v128.store32_lane(p, v, 1, 4)
  if (count > 2) v128.store32_lane(p, v, 2, 8)
}

/**
 * Four finite halves at p as floats. Sign-extended and shifted by 13, sign, exponent and mantissa
 * are in place but for three copies of the sign; the exponent's bias is mended by a multiplication
 * by 2^112, which is exact and covers subnormals.
 */
// @ts-ignore: decorator
@inline
export function loadHalves(p: usize): v128 {
  const shifted = i32x4.shl(v128.load16x4_s(p), 13)
  const bits = v128.and(shifted, i32x4.splat(<i32>0x8fffe000))
  return f32x4.mul(bits, f32x4.splat(reinterpret<f32>(0x77800000)))
}

/** Four bfloats at p as floats. */
// @ts-ignore: decorator
@inline
export function loadBfloats(p: usize): v128 {
  return i32x4.shl(v128.load16x4_u(p), 16)
}

/** Whole numbers that fit, as integers; of others the relaxed build may make anything. */
// @ts-ignore: decorator
@inline
export function whole(v: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i32x4.relaxed_trunc_f32x4_s(v)
  return i32x4.trunc_sat_f32x4_s(v)
}
