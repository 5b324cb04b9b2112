/** Coded rows as they are described in memory, and the halves that they are stored with. */

/** So many bits are no codes, but halves. */
export const HALVES = 16

/** The number that is nearest to x among halves, as its bits; too large ones become the largest. */
export function halfBits(x: f32): u32 {
  const bits = reinterpret<u32>(x)
  const sign = (bits >> 16) & 0x8000
  const rest = bits & 0x7fffffff
  if (rest >= 0x477ff000) return sign | 0x7bff
  // A step of subnormal halves is the last place of numbers near 1/2: the sum rounds.
  if (rest < 0x38800000) {
    return sign | (reinterpret<u32>(reinterpret<f32>(rest) + <f32>0.5) - 0x3f000000)
  }
  return sign | ((rest - 0x38000000 + 0xfff + ((rest >> 13) & 1)) >> 13)
}

export function halfValue(bits: u32): f32 {
  const shifted = ((bits & 0x7fff) << 13) | ((bits & 0x8000) << 16)
  // 2^112 mends the exponent.
  return reinterpret<f32>(shifted) * reinterpret<f32>(0x77800000)
}

/** Middle of the codes of a symmetric grid without a table. */
// @ts-ignore: decorator
@inline
export function middle(bits: i32): f32 {
  return <f32>((1 << bits) - 1) * 0.5
}

/** Coded rows are described in memory by seventeen 32-bit fields, which src/decoder/coded.ts writes. */
// @ts-ignore: decorator
@inline
export function codesOf(past: usize): usize {
  return load<usize>(past)
}

// @ts-ignore: decorator
@inline
export function scalesOf(past: usize): usize {
  return load<usize>(past, 4)
}

// @ts-ignore: decorator
@inline
export function widthOf(past: usize): i32 {
  return load<i32>(past, 8)
}

// @ts-ignore: decorator
@inline
export function bitsOf(past: usize): i32 {
  return load<i32>(past, 12)
}

// @ts-ignore: decorator
@inline
export function tokensOf(past: usize): i32 {
  return load<i32>(past, 16)
}

// @ts-ignore: decorator
@inline
export function channelsOf(past: usize): i32 {
  return load<i32>(past, 20)
}

// @ts-ignore: decorator
@inline
export function isSymmetric(past: usize): bool {
  return load<i32>(past, 24) != 0
}

// @ts-ignore: decorator
@inline
export function tableOf(past: usize): usize {
  return load<usize>(past, 28)
}

// @ts-ignore: decorator
@inline
export function outliersOf(past: usize): usize {
  return load<usize>(past, 32)
}

/** Outliers of a row; 0 where none are kept. */
// @ts-ignore: decorator
@inline
export function countOf(past: usize): i32 {
  return load<i32>(past, 36)
}

/** The share of a block's range that codes cover. */
// @ts-ignore: decorator
@inline
export function rangeOf(past: usize): f32 {
  return load<f32>(past, 40)
}

/** Bytes from row to row of codes. */
// @ts-ignore: decorator
@inline
export function lineOf(past: usize): usize {
  return load<usize>(past, 44)
}

/** Channels that a code stands for: 1, or 4 or 8 that have codebooks (coded-vectors.ts). */
// @ts-ignore: decorator
@inline
export function coupledOf(past: usize): i32 {
  return load<i32>(past, 48)
}

/** Where the codebook is that begins at a channel. */
// @ts-ignore: decorator
@inline
export function codebookAt(past: usize, channel: i32): usize {
  return load<usize>(past, 52) + (<usize>channel << 10)
}

/** Of keys that are coded before RoPE, the cosines of the first row; 0 of others. */
// @ts-ignore: decorator
@inline
export function cosOf(past: usize): usize {
  return load<usize>(past, 56)
}

// @ts-ignore: decorator
@inline
export function sinOf(past: usize): usize {
  return load<usize>(past, 60)
}

/** Whether such keys were turned by a Hadamard matrix before they were coded. */
// @ts-ignore: decorator
@inline
export function isRotated(past: usize): bool {
  return load<i32>(past, 64) != 0
}

/** Where the scales of a row's blocks are; where not symmetric, the biases lie behind them. */
// @ts-ignore: decorator
@inline
export function scalesAt(past: usize, row: i32): usize {
  const blocks = widthOf(past) / channelsOf(past)
  const each = isSymmetric(past) ? blocks : 2 * blocks
  return scalesOf(past) + (<usize>((row / tokensOf(past)) * each) << 1)
}

/** Where the codes of a row are, from a channel on. */
// @ts-ignore: decorator
@inline
export function codesAt(past: usize, row: i32, channel: i32 = 0): usize {
  const line = codesOf(past) + <usize>row * lineOf(past)
  return line + <usize>((channel / coupledOf(past) * bitsOf(past)) >> 3)
}
