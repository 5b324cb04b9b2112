import { expect, it } from 'vitest'
import { progressOf } from './progress.ts'

it('goes from 0 to 1 through the stages that there are', () => {
  const all = progressOf(['gradients', 'blocks', 'tuning'])
  expect(all('gradients', 0)).toBe(0)
  expect(all('gradients', 1)).toBe(all('blocks', 0))
  expect(all('blocks', 1)).toBe(all('tuning', 0))
  expect(all('tuning', 1)).toBe(1)
  expect(progressOf(['blocks'])('blocks', 0.25)).toBe(0.25)
})
