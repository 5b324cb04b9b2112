import { LowbitError } from '@lowbit/core'

/**
 * The calibration set: the first `samples` windows of `length` tokens of a text. A shorter text gives fewer
 * windows, and one shorter than a window gives a single short one: better little than nothing, but
 * no token is an error.
 */
export function calibrationWindows(
  tokens: readonly number[],
  samples: number,
  length: number,
): number[][] {
  if (tokens.length === 0) {
    throw new LowbitError('text-too-short', 'the calibration text has no tokens', {
      option: 'calibration',
    })
  }
  const windows: number[][] = []
  for (let from = 0; windows.length < samples && from + length <= tokens.length; from += length) {
    windows.push(tokens.slice(from, from + length))
  }
  return windows.length > 0 ? windows : [tokens.slice(0, length)]
}
