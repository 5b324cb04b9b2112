/** The published tasks, where the folder of shared data lies beside the checkout. */

import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, it } from 'vitest'
import { parseTask } from './choices.ts'

const data = path.resolve(import.meta.dirname, '../../../../../shared/data/zero-shot')
const there = existsSync(data)
const reason = there ? '' : ' (skipped: ../shared/data/zero-shot is not there)'

it.skipIf(!there).each([
  ['piqa', 2],
  ['arc_easy', 4],
  ['winogrande', 2],
  ['lambada_openai', 1],
])(`reads all of %s${reason}`, (task, choices) => {
  const items = parseTask(readFileSync(path.join(data, `${task}.jsonl`), 'utf8'), `${task}.jsonl`)
  expect(items.length).toBeGreaterThan(100)
  const most = items.filter(({ pairs }) => pairs.length === choices)
  expect(most.length / items.length).toBeGreaterThan(0.95)
  for (const { pairs, answer } of items) {
    expect(answer).toBeLessThan(pairs.length)
    expect(
      pairs.every(({ context, continuation }) => context !== '' && continuation.trim() !== ''),
    ).toBe(true)
  }
})
