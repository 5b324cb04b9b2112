import { expect, it } from 'vitest'
import * as z from 'zod'
import { definePlugin } from './define.ts'

const sample = definePlugin(
  {
    name: 'sample',
    summary: 'for this test',
    options: z.object({ bits: z.int().min(1).max(8).default(4) }),
  },
  (options) => ({ bits: options.bits }),
)

it('a factory fills in defaults and carries its schema', () => {
  expect(sample()).toEqual({ bits: 4 })
  expect(sample({ bits: 2 })).toEqual({ bits: 2 })
  expect(sample.name).toBe('sample')
  expect(Object.keys(sample.options.shape)).toEqual(['bits'])
})

it('errors name the option and what is allowed', () => {
  expect(() => sample({ bits: 9 })).toThrow(/sample: bits: .*8/)
  expect(() => sample({ bit: 4 } as never)).toThrow(/no option bit; it has: bits/)
})
