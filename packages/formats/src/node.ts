export { nodeFolder, publishFolder } from './folder/node-folder.ts'
