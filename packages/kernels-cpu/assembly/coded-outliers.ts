/**
 * Numbers that are kept beside codes (core's CodedRows.outliers): each row has as many, their channels in ascending
 * order, then what the codes lack there, as halves.
 */

import { channelsOf, countOf, halfBits, halfValue, outliersOf, tokensOf, widthOf } from './coded-fields'
import { take, thread } from './threads'

/** Where the list of a row is. */
// @ts-ignore: decorator
@inline
function listOf(past: usize, row: i32): usize {
  return outliersOf(past) + (<usize>(row * countOf(past)) << 2)
}

/**
 * Finds the outliers of rows of x, which become rows from `first` on: of each row the numbers that are farthest from
 * the mean of their block, of two as far the first. Writes their channels, and to `kept` x with each moved to the end
 * of the range of its block's others, so that codes see no more of it. A task is a row of blocks. `room`: for each
 * thread 3 × blocks floats and a byte for each of the blocks' numbers.
 */
export function findOutliers(
  past: usize,
  first: i32,
  x: usize,
  kept: usize,
  rows: i32,
  scratch: usize,
  room: usize,
): void {
  const width = widthOf(past)
  const tokens = tokensOf(past)
  const channels = channelsOf(past)
  const blocks = width / channels
  const count = countOf(past)
  const means = scratch + thread * room
  const low = means + (<usize>blocks << 2)
  const high = low + (<usize>blocks << 2)
  const flags = high + (<usize>blocks << 2)
  for (let group = take(); group < rows / tokens; group = take()) {
    const shift = <usize>(group * tokens * width) << 2
    const from = x + shift
    memory.fill(means, 0, <usize>blocks << 2)
    memory.fill(flags, 0, <usize>(tokens * width))
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < width; i++) {
        const mean = means + (<usize>(i / channels) << 2)
        store<f32>(mean, load<f32>(mean) + load<f32>(from + (<usize>(t * width + i) << 2)))
      }
    }
    for (let block = 0; block < blocks; block++) {
      const at = <usize>block << 2
      store<f32>(means + at, load<f32>(means + at) / <f32>(tokens * channels))
      store<f32>(low + at, Infinity)
      store<f32>(high + at, -Infinity)
    }
    for (let t = 0; t < tokens; t++) {
      const line = from + (<usize>(t * width) << 2)
      const marks = flags + <usize>(t * width)
      for (let n = 0; n < count; n++) {
        let best = -1
        let most: f32 = -1
        for (let i = 0; i < width; i++) {
          if (load<u8>(marks + <usize>i)) continue
          const mean = load<f32>(means + (<usize>(i / channels) << 2))
          const away = abs(load<f32>(line + (<usize>i << 2)) - mean)
          if (away > most) {
            most = away
            best = i
          }
        }
        // Nothing is farther than another where numbers are none.
        if (best < 0) for (best = 0; load<u8>(marks + <usize>best); ) best++
        store<u8>(marks + <usize>best, 1)
      }
      let list = listOf(past, first + group * tokens + t)
      for (let i = 0; i < width; i++) {
        if (load<u8>(marks + <usize>i)) {
          store<u16>(list, <u16>i)
          list += 2
          continue
        }
        const at = <usize>(i / channels) << 2
        const value = load<f32>(line + (<usize>i << 2))
        store<f32>(low + at, min(load<f32>(low + at), value))
        store<f32>(high + at, max(load<f32>(high + at), value))
      }
    }
    for (let i = 0; i < tokens * width; i++) {
      const at = <usize>((i % width) / channels) << 2
      let value = load<f32>(from + (<usize>i << 2))
      if (load<u8>(flags + <usize>i)) {
        const least = load<f32>(low + at)
        // A block of outliers alone has no range.
        value = least == Infinity ? 0 : min(max(value, least), load<f32>(high + at))
      }
      store<f32>(kept + shift + (<usize>i << 2), value)
    }
  }
}

/** What codes lack in the outliers of x, which are decoded, but for the outliers, at `decoded`. A task is a row. */
export function keepOutliers(
  past: usize,
  first: i32,
  x: usize,
  decoded: usize,
  rows: i32,
): void {
  const width = widthOf(past)
  const count = countOf(past)
  for (let row = take(); row < rows; row = take()) {
    const list = listOf(past, first + row)
    for (let i = 0; i < count; i++) {
      const p = list + (<usize>i << 1)
      const at = <usize>(row * width + <i32>load<u16>(p)) << 2
      const lacks = load<f32>(x + at) - load<f32>(decoded + at)
      store<u16>(p + (<usize>count << 1), <u16>halfBits(lacks))
    }
  }
}

/**
 * Attention over what codes lack, of the head that begins at channel `first`, for positions from `from` on. `cells` are
 * numbers by channel, of query i those that begin (i / group) · nextRow + (i % group) · next bytes on; `scores` are
 * `line` bytes apart. With keys, scores[i][t] += cell · what key t lacks there; with values (`mix`), the other way round,
 * cell += scores[i][t] · what value t lacks there.
 */
export function attendApart(
  mix: bool,
  cells: usize,
  nextRow: usize,
  next: usize,
  scores: usize,
  line: usize,
  rows: i32,
  group: i32,
  size: i32,
  past: usize,
  from: i32,
  tokens: i32,
  first: i32,
): void {
  const count = countOf(past)
  for (let t = 0; count > 0 && t < tokens; t++) {
    const list = listOf(past, from + t)
    for (let n = 0; n < count; n++) {
      const p = list + (<usize>n << 1)
      const channel = <i32>load<u16>(p) - first
      if (channel < 0 || channel >= size) continue
      const lacks = halfValue(load<u16>(p + (<usize>count << 1)))
      for (let i = 0; i < rows * group; i++) {
        const own = cells + <usize>(i / group) * nextRow + <usize>(i % group) * next
        const cell = own + (<usize>channel << 2)
        const score = scores + <usize>i * line + (<usize>t << 2)
        const to = mix ? cell : score
        store<f32>(to, load<f32>(to) + lacks * load<f32>(mix ? score : cell))
      }
    }
  }
}
