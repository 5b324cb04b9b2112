import { globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { allowed, BROWSER, CONCRETE } from './arrows.ts'

const root = path.resolve(import.meta.dirname, '../..')
const packages = globSync('packages/*/package.json', { cwd: root }).map(
  (file) => file.split('/')[1],
)

interface Manifest {
  name: string
  dependencies?: Record<string, string>
  peerDependencies?: Record<string, string>
  devDependencies?: Record<string, string>
}

const manifest = (folder: string): Manifest =>
  JSON.parse(readFileSync(path.join(root, folder, 'package.json'), 'utf8'))

/** Every module that a file imports, statically or not. */
function importsOf(file: string): string[] {
  const text = readFileSync(path.join(root, file), 'utf8')
  const found = text.matchAll(/(?<!['"])(?:from|import)\s*\(?\s*['"]([^'"\n]+)['"]/g)
  return [...found].map(([, name]) => name)
}

const isTest = (file: string): boolean => file.includes('.test.')
const sources = (folder: string): string[] => globSync(`${folder}/src/**/*.ts`, { cwd: root })
const ours = (name: string): string | undefined => /^@lowbit\/([^/]+)/.exec(name)?.[1]

describe.each(packages)('packages/%s', (name) => {
  const files = sources(`packages/${name}`).filter((file) => !isTest(file))
  const declared = manifest(`packages/${name}`)

  it('imports only whom the plan allows', () => {
    const wrong = files.flatMap((file) =>
      importsOf(file).flatMap((imported) => {
        const other = ours(imported)
        if (!other || other === name || allowed(name).includes(other)) return []
        return [`${file} imports ${imported}`]
      }),
    )
    expect(wrong).toEqual([])
  })

  it('reaches no other package by a relative path', () => {
    const wrong = files.flatMap((file) =>
      importsOf(file)
        .filter((imported) => imported.startsWith('.'))
        .map((imported) => path.relative(root, path.resolve(root, path.dirname(file), imported)))
        .filter((target) => !target.startsWith(`packages/${name}/`)),
    )
    expect(wrong).toEqual([])
  })

  it('declares what it imports, and nothing else of ours', () => {
    const dependencies = { ...declared.dependencies, ...declared.peerDependencies }
    const used = new Set(files.flatMap(importsOf).filter((n) => !/^(\.|node:)/.test(n)))
    const roots = new Set(
      [...used].map((n) =>
        n
          .split('/')
          .slice(0, n.startsWith('@') ? 2 : 1)
          .join('/'),
      ),
    )
    roots.delete(declared.name)
    expect([...roots].filter((n) => !(n in dependencies))).toEqual([])
    expect(Object.keys(dependencies).filter((n) => ours(n) && !roots.has(n))).toEqual([])
  })

  it('knows no concrete plugin', () => {
    const concrete = files
      .flatMap(importsOf)
      .map(ours)
      .filter((other) => other && other !== name && CONCRETE.test(other))
    expect(concrete).toEqual([])
  })

  if (BROWSER.includes(name)) {
    it('runs in browsers: node: only in what its own entry point for Node reaches', () => {
      const wrong = files.filter(
        (file) =>
          !/\/node(-[a-z-]+)?\.ts$|\/node\//.test(file) &&
          importsOf(file).some((imported) => imported.startsWith('node:')),
      )
      expect(wrong).toEqual([])
    })
  }
})
