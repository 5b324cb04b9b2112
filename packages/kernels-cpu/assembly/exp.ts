/**
 * e^x for four floats: x = n·ln 2 + r with |r| ≤ ln 2 / 2, a polynomial of degree 7 in r (Cephes'
 * expf), and n put into the exponent. About one unit in the last place; 0 below −87.3, e^88.7
 * above.
 */

import { fma, fnma, whole } from './simd'

// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  const low = f32x4.splat(-87.33654)
  const under = f32x4.lt(x, low)
  // pmax and pmin are one instruction each; operands in this order keep NaN a NaN.
  const t = f32x4.pmin(f32x4.pmax(x, low), f32x4.splat(88.72283))
  const n = f32x4.nearest(f32x4.mul(t, f32x4.splat(1.44269504088896341)))
  let r = fnma(n, f32x4.splat(0.693359375), t)
  r = fnma(n, f32x4.splat(-2.12194440e-4), r)
  let p = f32x4.splat(1.9875691500e-4)
  p = fma(p, r, f32x4.splat(1.3981999507e-3))
  p = fma(p, r, f32x4.splat(8.3334519073e-3))
  p = fma(p, r, f32x4.splat(4.1665795894e-2))
  p = fma(p, r, f32x4.splat(1.6666665459e-1))
  p = fma(p, r, f32x4.splat(5.0000001201e-1))
  p = f32x4.add(fma(p, f32x4.mul(r, r), r), f32x4.splat(1))
  // In two steps, so that 2^128 does not overflow on the way.
  const power = whole(n)
  const half = i32x4.shr_s(power, 1)
  const bias = i32x4.splat(127)
  p = f32x4.mul(p, i32x4.shl(i32x4.add(half, bias), 23))
  p = f32x4.mul(p, i32x4.shl(i32x4.add(i32x4.sub(power, half), bias), 23))
  return v128.andnot(p, under)
}
