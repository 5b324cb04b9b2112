import { execFileSync } from 'node:child_process'
import { existsSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'

const root = path.resolve(import.meta.dirname, '../..')
const folders = globSync(['packages/*/package.json', 'apps/*/package.json'], { cwd: root }).map(
  (file) => path.dirname(file),
)

const MARKED = /<!-- example: runs in tests -->\n```ts\n([\s\S]*?)```/g

describe.each(folders)('%s', (folder) => {
  const file = path.join(root, folder, 'README.md')

  it('has a README with an example that runs', () => {
    expect(existsSync(file), 'README.md is missing').toBe(true)
    const text = readFileSync(file, 'utf8')
    // Apps are run from the shell; what they print has tests of its own.
    if (folder.startsWith('apps/')) return
    expect([...text.matchAll(MARKED)].length).toBeGreaterThan(0)
  })

  if (!existsSync(file)) return
  // An example that declares vitest tests is run by its own package.
  const examples = [...readFileSync(file, 'utf8').matchAll(MARKED)]
    .map(([, code]) => code)
    .filter((code) => !code.includes("'vitest'") && !code.includes('describeKernels('))

  it.each(examples.map((code, i) => [i + 1, code] as const))(
    'example %d prints what its comments say',
    (number, code) => {
      // In the package's folder, so that its own name and its dependencies resolve as they do for users.
      const script = path.join(root, folder, `.readme-example-${number}.ts`)
      writeFileSync(script, code)
      try {
        const printed = execFileSync('node', [script], { encoding: 'utf8', stdio: 'pipe' })
        const expected = [...code.matchAll(/console\.log\(.*\/\/ (.*)/g)].map(([, text]) => text)
        expect(expected.length).toBeGreaterThan(0)
        expect(printed.trimEnd().split('\n')).toEqual(expected)
      } finally {
        rmSync(script)
      }
    },
  )
})
