/** The commands at the head of the README are run as they stand. */

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, it } from 'vitest'
import { runCli, temporaryFolder } from './testing/run-cli.ts'

it('the first example works', async () => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
  const [, block] = /```sh\n([\s\S]*?)```/.exec(readme) ?? []
  const folder = temporaryFolder()
  const commands = block.split('\n').filter((line) => line.startsWith('lowbit '))
  expect(commands.map((line) => line.split(' ')[1])).toEqual(['quantize', 'eval', 'generate'])
  for (const line of commands) {
    const words = [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, word]) => quoted ?? word)
    const placed = words
      .slice(1)
      .map((word) => (word === 'demo-3bit' ? path.join(folder, word) : word))
    // The same command with less text.
    const less: Record<string, string[]> = {
      quantize: ['--samples', '1', '--length', '64'],
      eval: ['--windows', '1', '--context', '64'],
      generate: ['--max-tokens', '8'],
    }
    const { code, stderr } = await runCli([...placed, ...less[placed[0]]])
    expect([line, code, code === 0 ? '' : stderr]).toEqual([line, 0, ''])
  }
})
