import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, it } from 'vitest'

const root = path.resolve(import.meta.dirname, '../..')

it('the README’s table of methods is what the plugins say', () => {
  const main = path.join(root, 'apps/cli/src/main.ts')
  const printed = execFileSync('node', [main, 'methods', '--markdown'], { encoding: 'utf8' })
  const [, table] = /<!-- methods -->\n([\s\S]*?)\n\n/.exec(
    readFileSync(path.join(root, 'README.md'), 'utf8'),
  ) ?? ['', '']
  expect(table.trim()).toBe(printed.trim())
})
