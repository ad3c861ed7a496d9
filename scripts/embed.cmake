# Puts a page together and writes it as C:
#   cmake -DPAGE=index.html -DPARTS=NAME=FILE[,NAME=FILE]... -DHEADER=x.h -DSYMBOL=x -DOUTPUT=x.c -P embed.cmake
# {{NAME}} in the page gives way to the FILE; HEADER declares SYMBOL (bytes) and SYMBOL_len.
file(READ "${PAGE}" page)
string(REPLACE "," ";" parts "${PARTS}")
foreach(part ${parts})
  string(REGEX MATCH "^([A-Z_]+)=(.*)$" whole "${part}")
  set(name "${CMAKE_MATCH_1}")
  file(READ "${CMAKE_MATCH_2}" text)
  string(REPLACE "{{${name}}}" "${text}" page "${page}")
endforeach()
file(WRITE "${OUTPUT}.html" "${page}")
file(READ "${OUTPUT}.html" bytes HEX)
string(LENGTH "${bytes}" digits)
math(EXPR count "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "((0x[0-9a-f][0-9a-f],)(0x[0-9a-f][0-9a-f],)(0x[0-9a-f][0-9a-f],)(0x[0-9a-f][0-9a-f],)(0x[0-9a-f][0-9a-f],)(0x[0-9a-f][0-9a-f],)(0x[0-9a-f][0-9a-f],)(0x[0-9a-f][0-9a-f],))" "\\1\n" bytes "${bytes}")
file(WRITE "${OUTPUT}" "#include \"${HEADER}\"\n\nconst unsigned char ${SYMBOL}[] = {\n${bytes}\n};\nconst size_t ${SYMBOL}_len = ${count};\n")
file(REMOVE "${OUTPUT}.html")
