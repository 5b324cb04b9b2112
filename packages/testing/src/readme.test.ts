/** The README's example is a test file: imported while tests are collected, it declares its own. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, it } from 'vitest'

const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8')
const [, example = ''] = /<!-- example: runs in tests -->\n```ts\n([\s\S]*?)```/.exec(readme) ?? []

it('has an example that declares tests', () => {
  expect(example).toContain('describeKernels(')
})

const entry = new URL('./index.ts', import.meta.url).href
const folder = await mkdtemp(join(tmpdir(), 'lowbit-testing-'))
try {
  const path = join(folder, 'example.ts')
  await writeFile(path, example.replace("'@lowbit/testing'", `'${entry}'`))
  await import(/* @vite-ignore */ pathToFileURL(path).href)
} finally {
  await rm(folder, { recursive: true })
}
