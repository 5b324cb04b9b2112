import { expect, it } from 'vitest'
import { shareOption } from './share.ts'

it.each([
  ['1%', 0.01],
  [' 2.5 % ', 0.025],
  ['0.25', 0.25],
  [0, 0],
])('%j is a share', (given, value) => {
  expect(shareOption.parse(given)).toBeCloseTo(value)
})

it.each(['', '%', '100%', '-1%', 'many', 1.5, Number.NaN])('%j is none', (given) => {
  expect(shareOption.safeParse(given).success).toBe(false)
})
