import { readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'

/** Every module that `entry` reaches by imports, with the other packages it names. */
async function reach(entry: URL): Promise<{ modules: Set<string>; packages: Set<string> }> {
  const modules = new Set<string>()
  const packages = new Set<string>()
  const waiting = [entry]
  for (let url = waiting.pop(); url !== undefined; url = waiting.pop()) {
    if (modules.has(url.href)) continue
    modules.add(url.href)
    const text = await readFile(url, 'utf8')
    for (const [, name] of text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)) {
      if (name.startsWith('.')) waiting.push(new URL(name, url))
      else packages.add(name)
    }
  }
  return { modules, packages }
}

it('the main entry imports nothing of Node, nor any package', async () => {
  const { modules, packages } = await reach(new URL('./index.ts', import.meta.url))
  expect(modules.size).toBeGreaterThan(8)
  expect([...packages]).toEqual([])
})

it('the Node entry imports nothing but Node', async () => {
  const { packages } = await reach(new URL('./node.ts', import.meta.url))
  expect([...packages].filter((name) => !name.startsWith('node:'))).toEqual([])
})
