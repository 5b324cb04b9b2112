import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'

const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8')

it('the example of the README runs and prints what it says', async () => {
  const [, code = ''] = /<!-- example: runs in tests -->\n```ts\n([\s\S]*?)```/.exec(readme) ?? []
  const entry = new URL('./index.ts', import.meta.url).href
  const folder = await mkdtemp(join(tmpdir(), 'safetensors-'))
  const printed = vi.spyOn(console, 'log').mockImplementation(() => {})
  try {
    const path = join(folder, 'example.ts')
    await writeFile(path, code.replace("'@lowbit/safetensors'", `'${entry}'`))
    await import(/* @vite-ignore */ path)
    const expected = [...code.matchAll(/console\.log\(.*\/\/ (.*)/g)].map(([, text]) => text)
    expect(expected.length).toBeGreaterThan(0)
    expect(printed.mock.calls.map((line) => line.join(' '))).toEqual(expected)
  } finally {
    printed.mockRestore()
    await rm(folder, { recursive: true })
  }
})

it('the README lists every error code', async () => {
  const source = await readFile(new URL('./error.ts', import.meta.url), 'utf8')
  const codes = [...source.matchAll(/^ {2}\| '([a-z0-9-]+)'/gm)].map(([, code]) => code)
  expect(codes.length).toBeGreaterThan(30)
  expect(codes.filter((code) => !readme.includes(`| \`${code}\` `))).toEqual([])
})
