import { LowbitError } from '@lowbit/core'
import type { Tokenizer } from '../tokenizer/tokenizer.ts'

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

/** Tokens past those asked for, so that the cut of the text can't have changed the ones in use. */
const MARGIN = 64

/** At least the first `needed` tokens of a text, without encoding all of a long one. */
export function firstTokens(tokenizer: Tokenizer, text: string, needed: number): number[] {
  for (let characters = needed * 6; characters < text.length; characters *= 2) {
    const tokens = tokenizer.encode(text.slice(0, characters))
    if (tokens.length >= needed + MARGIN) return tokens.slice(0, needed)
  }
  return tokenizer.encode(text)
}
