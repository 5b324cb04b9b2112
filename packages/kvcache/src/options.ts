/** Options that schemes share. */

import * as z from 'zod'

export const window = (usual: number) =>
  z.int().min(0).max(1_000_000).default(usual).describe('newest tokens that stay in full')
export const sinks = z
  .int()
  .min(0)
  .max(32)
  .default(4)
  .describe('first tokens that stay in full: all later ones look at them')
export const slide = z
  .int()
  .min(0)
  .max(1_000_000)
  .default(0)
  .describe('newest tokens that are kept at all, besides the first few; 0 keeps all')
export const positions = z
  .enum(['behind', 'before'])
  .default('behind')
  .describe('whether keys are coded behind RoPE, or before it and turned when they are read')
export const rotation = (usual: 'hadamard' | 'none') =>
  z
    .enum(['hadamard', 'none'])
    .default(usual)
    .describe('whether heads are turned by a Hadamard matrix, which spreads outliers')
export const rotated = (rotation: 'hadamard' | 'none') => ({
  keys: rotation === 'hadamard',
  values: rotation === 'hadamard',
})
