/**
 * Keys and values in few bits (core's CacheKernels). A block of tokens × channels has an f16 scale and, where the
 * grid is not symmetric, an f16 bias. Eight codes lie in `bits` bytes, the first in the lowest bits; a row is whole words.
 */

import {
  bitsOf,
  channelsOf,
  codebookAt,
  codesAt,
  cosOf,
  countOf,
  coupledOf,
  halfBits,
  halfValue,
  HALVES,
  isRotated,
  isSymmetric,
  lineOf,
  middle,
  outliersOf,
  rangeOf,
  scalesAt,
  scalesOf,
  sinOf,
  tableOf,
  tokensOf,
  widthOf,
} from './coded-fields'
import { HALFWAY } from './coded-planes'
import { loadHalves } from './simd'
import { hadamard } from './terms'
import { take, thread } from './threads'

/** Scale and bias of each of `size` channels of a row, from channel `first` on: floats at s and z. */
export function spread(s: usize, z: usize, past: usize, row: i32, first: i32, size: i32): void {
  if (bitsOf(past) == HALVES || coupledOf(past) > 1) return
  const scales = scalesAt(past, row)
  const channels = channelsOf(past)
  const blocks = widthOf(past) / channels
  const symmetric = isSymmetric(past)
  const table = tableOf(past)
  const level: f32 = table ? 0 : middle(bitsOf(past))
  for (let i = 0; i < size; ) {
    const block = (first + i) / channels
    const scale = halfValue(load<u16>(scales + (<usize>block << 1)))
    const bias: f32 = symmetric
      ? -scale * level
      : halfValue(load<u16>(scales + (<usize>(blocks + block) << 1)))
    const end = min(size, (block + 1) * channels - first)
    const factors = f32x4.splat(scale)
    const levels = f32x4.splat(bias)
    for (; i + 4 <= end; i += 4) {
      v128.store(s + (<usize>i << 2), factors)
      v128.store(z + (<usize>i << 2), levels)
    }
    for (; i < end; i++) {
      store<f32>(s + (<usize>i << 2), scale)
      store<f32>(z + (<usize>i << 2), bias)
    }
  }
}

// @ts-ignore: decorator
@inline
function fourEntries(table: usize, codes: v128): v128 {
  let v = v128.load32_zero(table + (<usize>i32x4.extract_lane(codes, 0) << 2))
  v = v128.load32_lane(table + (<usize>i32x4.extract_lane(codes, 1) << 2), v, 1)
  v = v128.load32_lane(table + (<usize>i32x4.extract_lane(codes, 2) << 2), v, 2)
  return v128.load32_lane(table + (<usize>i32x4.extract_lane(codes, 3) << 2), v, 3)
}

/**
 * Scales and biases of `count` rows from `at` on that have some of their own, for each of the `groups` of a head, whose
 * lines are `line` bytes apart. Lines are filled to a multiple of four. For others what leaves sums as they are.
 */
export function tokenScales(
  s: usize,
  z: usize,
  line: usize,
  past: usize,
  at: i32,
  count: i32,
  first: i32,
  groups: i32,
): void {
  if (tokensOf(past) != 1 || bitsOf(past) == HALVES) {
    // Planes of halves meet 2^56 twice, where their exponents lack 2^112.
    const one = f32x4.splat(bitsOf(past) == HALVES ? HALFWAY : 1)
    for (let t: usize = 0; t < <usize>count << 2; t += 16) {
      v128.store(s + t, one)
      v128.store(z + t, f32x4.splat(0))
    }
    return
  }
  const channels = channelsOf(past)
  const blocks = widthOf(past) / channels
  const symmetric = isSymmetric(past)
  const next = <usize>(symmetric ? blocks : 2 * blocks) << 1
  const level = f32x4.splat(-middle(bitsOf(past)))
  for (let g = 0; g < groups; g++, s += line, z += line) {
    const from = scalesOf(past) + <usize>at * next + (<usize>(first / channels + g) << 1)
    for (let t = 0; t < count; t += 4) {
      const scales = fourHalves(from, next, t, count)
      v128.store(s + (<usize>t << 2), scales)
      const biases = symmetric
        ? f32x4.mul(scales, level)
        : fourHalves(from + (<usize>blocks << 1), next, t, count)
      v128.store(z + (<usize>t << 2), biases)
    }
  }
}

/** The halves of rows t to t + 3, `next` bytes apart; of the last row instead of those from `count` on. */
// @ts-ignore: decorator
@inline
function fourHalves(from: usize, next: usize, t: i32, count: i32): v128 {
  const last = count - 1
  let v = i32x4.splat(0)
  v = v128.load16_lane(from + <usize>t * next, v, 1)
  v = v128.load16_lane(from + <usize>min(t + 1, last) * next, v, 3)
  v = v128.load16_lane(from + <usize>min(t + 2, last) * next, v, 5)
  v = v128.load16_lane(from + <usize>min(t + 3, last) * next, v, 7)
  const bits = v128.and(i32x4.shr_s(v, 3), i32x4.splat(<i32>0x8fffe000))
  return f32x4.mul(bits, f32x4.splat(reinterpret<f32>(0x77800000)))
}

/** The numbers of a row from channel `first` on, `size` of them, a multiple of 8: s[i] · (code or its entry) + z[i]. */
function expand(to: usize, past: usize, row: i32, first: i32, size: i32, s: usize, z: usize): void {
  let codes = codesAt(past, row, first)
  if (coupledOf(past) > 1) {
    entries(to, codes, past, first, size)
    return
  }
  const bits = bitsOf(past)
  const table = tableOf(past)
  if (bits == HALVES) {
    for (let i = 0; i < size; i += 4) {
      v128.store(to + (<usize>i << 2), loadHalves(codes + (<usize>i << 1)))
    }
    return
  }
  // A code is brought to the top of its lane by a multiplication and down again by a shift.
  const shift = 32 - bits
  const low = i32x4(
    1 << shift,
    1 << max(0, shift - bits),
    1 << max(0, shift - 2 * bits),
    1 << max(0, shift - 3 * bits),
  )
  const high = i32x4(
    1 << max(0, shift - 4 * bits),
    1 << max(0, shift - 5 * bits),
    1 << max(0, shift - 6 * bits),
    1 << max(0, shift - 7 * bits),
  )
  for (let i = 0; i < size; i += 8, codes += bits) {
    let a: v128
    let b: v128
    if (bits == 8) {
      const pairs = v128.load8x8_u(codes)
      a = i32x4.extend_low_i16x8_u(pairs)
      b = i32x4.extend_high_i16x8_u(pairs)
    } else {
      const word = v128.load32_splat(codes)
      a = i32x4.shr_u(i32x4.mul(word, low), shift)
      b = i32x4.shr_u(i32x4.mul(word, high), shift)
    }
    const at = <usize>i << 2
    const x = table ? fourEntries(table, a) : f32x4.convert_i32x4_s(a)
    const y = table ? fourEntries(table, b) : f32x4.convert_i32x4_s(b)
    v128.store(to + at, f32x4.add(f32x4.mul(x, v128.load(s + at)), v128.load(z + at)))
    v128.store(to + at, f32x4.add(f32x4.mul(y, v128.load(s + at, 16)), v128.load(z + at, 16)), 16)
  }
}

/** The entries of coupled channels. */
// @ts-ignore: decorator
@inline
function entries(to: usize, codes: usize, past: usize, first: i32, size: i32): void {
  const coupled = coupledOf(past)
  const each = <usize>coupled << 2
  for (let i = 0; i < size; i += coupled, codes++, to += each) {
    const entry = codebookAt(past, first + i) + <usize>load<u8>(codes) * each
    v128.store(to, v128.load(entry))
    if (coupled > 4) v128.store(to, v128.load(entry, 16), 16)
  }
}

/** The code whose entry is nearest to x; of two as near the first. */
function nearestEntry(table: usize, count: i32, x: f32): i32 {
  let low = 0
  while (count > 1) {
    const half = count >> 1
    const at = table + (<usize>(low + half) << 2)
    if (x > (load<f32>(at - 4) + load<f32>(at)) * 0.5) {
      low += half
      count -= half
    } else count = half
  }
  return low
}

/**
 * The rows [at, at + count), channels [first, first + size), as floats; s and z go on from block to block, `anew` says
 * that they are not there yet.
 */
export function expandRows(
  to: usize,
  past: usize,
  at: i32,
  count: i32,
  first: i32,
  size: i32,
  anew: bool,
  s: usize,
  z: usize,
): void {
  const tokens = tokensOf(past)
  for (let row = at; row < at + count; row++, to += <usize>size << 2) {
    if (row % tokens == 0 || (anew && row == at)) spread(s, z, past, row, first, size)
    expand(to, past, row, first, size, s, z)
    addApart(to, past, row, first, size)
    if (cosOf(past)) turnHead(to, past, row, size)
  }
}

/** A head of a key that was coded before RoPE, as it is at its position. */
function turnHead(to: usize, past: usize, row: i32, size: i32): void {
  const half = <usize>(size >> 1) << 2
  const cos = cosOf(past) + <usize>row * half
  const sin = sinOf(past) + <usize>row * half
  let norm: f32 = 1
  if (isRotated(past)) {
    hadamard(to, size)
    norm = <f32>(1 / Math.sqrt(<f64>size))
  }
  const factor = f32x4.splat(norm)
  for (let o: usize = 0; o < half; o += 16) {
    const c = f32x4.mul(v128.load(cos + o), factor)
    const s = f32x4.mul(v128.load(sin + o), factor)
    const a = v128.load(to + o)
    const b = v128.load(to + half + o)
    v128.store(to + o, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)))
    v128.store(to + half + o, f32x4.add(f32x4.mul(b, c), f32x4.mul(a, s)))
  }
}

/** Adds what codes lack in the outliers of a row to its numbers from channel `first` on. */
// @ts-ignore: decorator
@inline
function addApart(to: usize, past: usize, row: i32, first: i32, size: i32): void {
  const count = countOf(past)
  const list = outliersOf(past) + (<usize>(row * count) << 2)
  for (let i = 0; i < count; i++) {
    const p = list + (<usize>i << 1)
    const channel = <i32>load<u16>(p) - first
    if (channel < 0 || channel >= size) continue
    const at = to + (<usize>channel << 2)
    store<f32>(at, load<f32>(at) + halfValue(load<u16>(p + (<usize>count << 1))))
  }
}

/** Codes x as the rows from `first` on. A task is a row of blocks. */
export function encodeRows(past: usize, first: i32, x: usize, rows: i32): void {
  const width = widthOf(past)
  const bits = bitsOf(past)
  if (bits == HALVES) {
    for (let row = take(); row < rows; row = take()) {
      const from = x + (<usize>(row * width) << 2)
      const to = codesAt(past, first + row)
      for (let i = 0; i < width; i++) {
        store<u16>(to + (<usize>i << 1), <u16>halfBits(load<f32>(from + (<usize>i << 2))))
      }
    }
    return
  }
  const tokens = tokensOf(past)
  const channels = channelsOf(past)
  const symmetric = isSymmetric(past)
  const table = tableOf(past)
  const blocks = width / channels
  const line = lineOf(past)
  const levels = (1 << bits) - 1
  const whole: f32 = 1
  const cut: f32 = (whole - rangeOf(past)) * 0.5
  const reach: f32 = table
    ? max(abs(load<f32>(table)), abs(load<f32>(table + (<usize>levels << 2))))
    : middle(bits)
  for (let group = take(); group < rows / tokens; group = take()) {
    const from = x + <usize>(group * tokens * width) * 4
    const to = codesAt(past, first + group * tokens)
    const at = scalesAt(past, first + group * tokens)
    memory.fill(to, 0, <usize>tokens * line)
    for (let block = 0; block < blocks; block++) {
      const channel = block * channels
      let least: f32 = Infinity
      let most: f32 = -Infinity
      for (let t = 0; t < tokens; t++) {
        for (let i = 0; i < channels; i++) {
          const value = load<f32>(from + (<usize>(t * width + channel + i) << 2))
          least = min(least, value)
          most = max(most, value)
        }
      }
      const away = (most - least) * cut
      least += away
      most -= away
      const steps: f32 = table ? 1 : <f32>levels
      const span = symmetric ? max(-least, most) / reach : (most - least) / steps
      const scaleBits = halfBits(span)
      const scale = halfValue(scaleBits)
      store<u16>(at + (<usize>block << 1), <u16>scaleBits)
      let bias: f32 = 0
      if (symmetric) {
        bias = table ? 0 : -scale * middle(bits)
      } else {
        const biasBits = halfBits(least)
        bias = halfValue(biasBits)
        store<u16>(at + (<usize>(blocks + block) << 1), <u16>biasBits)
      }
      const inverse: f32 = scale > 0 ? 1 / scale : 0
      for (let t = 0; t < tokens; t++) {
        const row = to + <usize>t * line
        for (let i = 0; i < channels; i++) {
          const column = channel + i
          const value = (load<f32>(from + (<usize>(t * width + column) << 2)) - bias) * inverse
          const code = table
            ? nearestEntry(table, levels + 1, value)
            : <i32>nearest(min(max(value, <f32>0), <f32>levels))
          const bit = column * bits
          const byte = row + <usize>(bit >> 3)
          const put = code << (bit & 7)
          store<u8>(byte, load<u8>(byte) | <u8>put)
          if ((bit & 7) + bits > 8) store<u8>(byte, load<u8>(byte, 1) | <u8>(put >> 8), 1)
        }
      }
    }
  }
}

/** A task is a row. `room`: for each thread 2 × width floats. */
export function decodeRows(
  out: usize,
  past: usize,
  from: i32,
  rows: i32,
  scratch: usize,
  room: usize,
): void {
  const width = widthOf(past)
  const s = scratch + thread * room
  const z = s + (<usize>width << 2)
  for (let row = take(); row < rows; row = take()) {
    const to = out + (<usize>(row * width) << 2)
    spread(s, z, past, from + row, 0, width)
    expand(to, past, from + row, 0, width, s, z)
    addApart(to, past, from + row, 0, width)
  }
}
