import { expect, it } from 'vitest'
import { loadNumbers, storeNumbers, toNumbers } from './storage.ts'

it.each(['i8', 'u4', 'u8'] as const)(
  '%s has no negative zero: what is stored comes back',
  (type) => {
    const numbers = toNumbers(type, [-0.3, -0, 0.2, 3.4])
    expect(Object.is(numbers.values[0], 0)).toBe(true)
    const again = loadNumbers(type, storeNumbers(numbers), 4)
    expect(again.values).toEqual(numbers.values)
  },
)
